"""Jobs that were written for remap and for mincemeat, run as they are: `p2premap run --compat remap|mincemeat FILE`."""
