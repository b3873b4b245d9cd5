"""Hold the steps by which a control database comes to its form."""
