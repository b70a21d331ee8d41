"""What moves through the gateway, and its forms as bytes and JSON: pure, and shared by every part."""
