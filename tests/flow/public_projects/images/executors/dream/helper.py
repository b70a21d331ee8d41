"""What is imported by its own name, because a configuration lists it first."""


def drawn(text: str, count: int) -> list[bytes]:
    return [f"{text} {number}".encode() for number in range(count)]
