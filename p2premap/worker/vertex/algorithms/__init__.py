"""The vertex programs that are shipped, in the array form.

Definitions are those of LDBC Graphalytics (Iosup et al., VLDB 2016, and its specification): what dangling vertices,
ties and vertices that are not reached mean, so that results can be compared with other systems number by number.
"""

from p2premap.worker.vertex.algorithms.components import Components
from p2premap.worker.vertex.algorithms.cores import KCore
from p2premap.worker.vertex.algorithms.degrees import Degrees
from p2premap.worker.vertex.algorithms.labels import LabelPropagation
from p2premap.worker.vertex.algorithms.pagerank import PageRank
from p2premap.worker.vertex.algorithms.paths import BFS, SSSP
from p2premap.worker.vertex.algorithms.triangles import LCC, Triangles

__all__ = [
    "BFS",
    "LCC",
    "SSSP",
    "Components",
    "Degrees",
    "KCore",
    "LabelPropagation",
    "PageRank",
    "Triangles",
]
