"""From a registered architecture to a network, and how one is trained again."""
