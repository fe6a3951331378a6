"""What libraries do when they are first used, done before there are jobs.

In the fork server it is done once, and every job's process has it. Otherwise each would do it.
"""

import numpy as np
import pyarrow as pa
import pyarrow.dataset
from PIL import Image
from sqlalchemy.orm import configure_mappers


def anticipate() -> None:
    """Import and set up now what the first query, array and image of a process would ask for."""
    configure_mappers()
    Image.preinit()
    pa.array(np.zeros(1))  # where pandas is installed, Arrow imports it for the first such array
