// Lines over time, by uPlot.
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import uPlot from "./vendor/uplot.js";

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export const dark = matchMedia("(prefers-color-scheme: dark)");

const HEIGHT = 160;
const SPAN_S = 60; // at least
const WHOLE = [1, 2, 5].flatMap((step) => [...Array(13).keys()].map((power) => step * 10 ** power)).sort((a, b) => a - b);

function options(width, { series, time, across }) {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const clock = (_, at) => at.map((s) => new Date(s * 1000).toLocaleTimeString());
  const x = time ? { space: 110, values: clock } : { incrs: WHOLE };
  return {
    width,
    height: HEIGHT,
    scales: {
      x: { time, range: (_, low, high) => (time ? [Math.min(low, high - SPAN_S), high] : [low, Math.max(high, low + 1)]) },
      y: { range: (_, low, high) => [0, Math.max(high, 1)] },
    },
    axes: [{ ...axis, ...x, size: 32 }, { ...axis, size: 60, incrs: WHOLE }],
    series: [
      { label: time ? "at" : across, value: (_, v) => (v == null ? "–" : time ? new Date(v * 1000).toLocaleTimeString() : v) },
      ...series.map((s) => ({ label: s.label, stroke: colour(s.colour), width: 1.5, points: { show: !time } })),
    ],
  };
}

export function Graph({ label, columns, series, time = true, across = "" }) {
  const box = useRef(null);
  const plot = useRef(null);
  const [painted, paint] = useState(0);
  useEffect(() => {
    const again = () => paint((n) => n + 1);
    dark.addEventListener("change", again);
    return () => dark.removeEventListener("change", again);
  }, []);
  useEffect(() => {
    plot.current = new uPlot(options(box.current.clientWidth, { series, time, across }), columns, box.current);
    const fit = new ResizeObserver(() => plot.current.setSize({ width: box.current.clientWidth, height: HEIGHT }));
    fit.observe(box.current);
    return () => {
      fit.disconnect();
      plot.current.destroy();
    };
  }, [painted]);
  useEffect(() => {
    plot.current.setData(columns);
    // what the legend says while nobody points at anything
    if (!(plot.current.cursor.left >= 0)) plot.current.setLegend({ idx: columns[0].length - 1 });
  });
  return html`<figure class="graph" role="group" aria-label=${label}><figcaption>${label}</figcaption><div ref=${box}></div></figure>`;
}
