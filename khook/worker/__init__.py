"""What one worker does with a namespace: watch, judge, claim, call, and write the Hook's status."""
