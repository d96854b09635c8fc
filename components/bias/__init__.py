"""Social bias of metrics: how it is measured, and how it is reduced."""
