"""What must be done, and what is already done: jobs, stages, tasks, attempts. Start reading at `job`."""
