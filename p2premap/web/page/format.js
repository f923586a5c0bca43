// Numbers as people read them, as the terminal shows them (p2premap/client/amounts.py).

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (count >= 999.5 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit === 0 || count >= 99.95 ? Math.round(count) : Number(count.toPrecision(3))} ${units[unit]}`;
}

export function count(number) {
  return Math.round(number).toLocaleString("en");
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

const LONG = [
  [86400, "d", 3600, "h"],
  [3600, "h", 60, "min"],
  [60, "min", 1, "s"],
];

export function seconds(s) {
  if (!isFinite(s)) return "–";
  if (s < 0.00995) return `${Math.round(s * 1000)} ms`;
  if (s < 59.95) return `${s.toFixed(s < 9.995 ? 2 : 1)} s`;
  const whole = Math.round(s);
  const [size, name, part, partName] = LONG.find(([least]) => whole >= least);
  const rest = Math.floor((whole % size) / part);
  return `${Math.floor(whole / size)} ${name}${rest ? ` ${rest} ${partName}` : ""}`;
}

export function percent(part) {
  return `${Math.round(100 * part)} %`;
}

export function clock(at) {
  if (!at) return "–";
  const then = new Date(at * 1000);
  const today = then.toDateString() === new Date().toDateString();
  return today ? then.toLocaleTimeString() : then.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

export function short(id) {
  return id.slice(0, 8);
}
