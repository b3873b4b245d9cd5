"""The monitor process: settles bars, scores what was said of them, and says what has drifted."""
