"""One training by several processes: what each has, what they tell each other. The network itself stays as it is."""
