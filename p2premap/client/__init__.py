"""What a program on this machine uses to reach the cluster: the CLI is one such program."""
