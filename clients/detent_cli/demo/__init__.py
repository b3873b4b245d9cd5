"""Run the main job on real bars and show it: `detent demo`."""

from detent_cli.demo.command import demo

__all__ = ["demo"]
