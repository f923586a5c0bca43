"""What runs in worker processes: see `p2premap.worker.runtime.Runtime`."""

from random import Random

import msgspec

from p2premap.worker.loading import load_bundle
from p2premap.worker.runtime import Result
from p2premap_montecarlo.director import Draw, Sums


class Runtime:
    def __init__(self, bundle, directory):
        self.sample = load_bundle(bundle).sample

    def run(self, function, params, segments, context):
        if function == "report":
            sums = msgspec.msgpack.decode(params, type=Sums)
            report = context.new_blob()
            report.write(f"{sums.mean:.6f} +- {sums.error:.6f} from {sums.count} samples\n".encode())
            return Result(blobs=(report.finish(),))
        draw = msgspec.msgpack.decode(params, type=Draw)
        random = Random(draw.seed)
        total = squares = 0.0
        for _ in range(draw.samples):
            value = self.sample(random)
            total += value
            squares += value * value
        context.count(records_out=draw.samples)
        return Result(msgspec.msgpack.encode(Sums(draw.samples, total, squares)))
