"""A gateway class of the user's: its base class, how it is loaded, and how its routes are served."""
