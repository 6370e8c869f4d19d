"""What `dsclora distill` and `dsclora merge` do: training with a teacher, and adapters."""
