"""Figures of a running gateway: plain numbers where requests pass, named when they are asked for."""
