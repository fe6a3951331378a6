"""What the service answers, as typed results; and the parts of bodies that are sent."""
