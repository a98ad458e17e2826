"""The only room that speaks to kagent: one attempt or one reconcile at a time, never a retry."""
