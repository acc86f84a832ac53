"""The checks of `certagent doctor`: each yields results, and changes nothing."""
