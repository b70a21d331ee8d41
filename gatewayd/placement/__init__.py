"""What runs on other engines, in processes of their own: the driver of a Ray cluster, and its actors."""
