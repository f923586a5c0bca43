// Lines over time, by uPlot.
import { html, useEffect, useRef } from "./vendor/preact-htm.js";
import uPlot from "./vendor/uplot.js";

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const HEIGHT = 160;

export function Graph({ label, columns, series, time = true }) {
  const box = useRef(null);
  const plot = useRef(null);
  useEffect(() => {
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    plot.current = new uPlot(
      {
        width: box.current.clientWidth,
        height: HEIGHT,
        scales: { x: { time }, y: { range: (_, low, high) => [0, Math.max(high, 1)] } },
        axes: [axis, { ...axis, size: 60 }],
        cursor: { show: true },
        legend: { show: true },
        series: [{}, ...series.map((s) => ({ label: s.label, stroke: colour(s.colour), width: 1.5, points: { show: !time } }))],
      },
      columns,
      box.current,
    );
    const fit = new ResizeObserver(() => plot.current.setSize({ width: box.current.clientWidth, height: HEIGHT }));
    fit.observe(box.current);
    return () => {
      fit.disconnect();
      plot.current.destroy();
    };
  }, []);
  useEffect(() => plot.current.setData(columns));
  return html`<figure class="graph"><figcaption>${label}</figcaption><div ref=${box}></div></figure>`;
}
