"""What a flow between temperatures is worth."""
