"""The reusable Prefect tasks that flows are made of."""
