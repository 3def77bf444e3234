"""Ground floor: tensors in, tensors out. No disk, no network, no clock."""
