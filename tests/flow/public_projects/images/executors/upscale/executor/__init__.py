from .upscaler import Upscaler

__all__ = ["Upscaler"]
