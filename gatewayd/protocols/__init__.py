"""What clients speak: each file translates and delegates, none decides."""
