"""What every floor shares: fields, units, elements, errors, artifacts, configuration, runtime."""
