"""What users import: Flow, which describes a Flow and runs it, and Client, which talks to a gateway."""
