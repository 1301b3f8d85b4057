"""Put a large model on the device in the user's hand, prove that it fits, and talk to it."""

from onhand.core.budget import Breach, Budget
from onhand.core.errors import OnhandError
from onhand.core.measurement import Measurement

__all__ = ["Breach", "Budget", "Measurement", "OnhandError", "__version__"]

__version__ = "0.1.0"
