"""What runs: the twistd plugin, the service, the gateway, and the gateway process of a Flow in Python."""
