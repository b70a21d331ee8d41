"""What gatewayd and systemd say to each other: its state, its pulse, and the sockets that it is given."""
