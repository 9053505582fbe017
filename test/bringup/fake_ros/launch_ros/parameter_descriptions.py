from __future__ import annotations


class ParameterValue:
    def __init__(self, value, *, value_type=None):
        if value_type is str and not isinstance(value, str):
            raise TypeError("value: expected a text")
        self.value, self.value_type = value, value_type
