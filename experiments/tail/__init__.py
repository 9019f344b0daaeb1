"""What dropping the tail costs: four ways to choose training windows, compared in a simulator. ``make experiment`` runs it.

``plan`` says what is trained and rolled out, ``run`` does it by the steps of ``work``, ``page`` writes the result into docs/.
In: a simulator (``scene``, ``libero``, ``stepper``) and a scripted demonstrator (``expert``, ``demos``). Out: success rates.
Between them is robozarr as anybody uses it: ``convert``, ``WindowDataset``, ``WindowLoader`` (``schemes``, ``policy``).
Read ``schemes`` first.
"""

import logging
import os
import sys
from types import ModuleType

# one thread each, before numpy is imported: as many processes as cores, and small matrices
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# robosuite imports OpenCV to show pictures on a screen; nothing is shown here
sys.modules.setdefault("cv2", ModuleType("cv2"))
# and it warns, in each process, that it was given no macros
logging.getLogger("robosuite_logs").addFilter(lambda entry: "macro" not in entry.getMessage())
