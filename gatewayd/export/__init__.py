"""
A Flow written for engines that run containers: Kubernetes, Docker Compose (pure).

``plan`` divides a Flow into containers, one kind for the gateway and one for each executor; ``kubernetes``
and ``compose`` write the plan in the words of an engine.
"""
