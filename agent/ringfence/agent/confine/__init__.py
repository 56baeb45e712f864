"""What a locked-down process of a job gives up, whoever it is: limits, privileges, files and system calls."""
