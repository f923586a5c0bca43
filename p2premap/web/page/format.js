// Numbers as people read them.

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  const units = ["kB", "MB", "GB", "TB", "PB"];
  let unit = -1;
  while (count >= 999.5 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${count < 10 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

export function count(number) {
  return Math.round(number).toLocaleString("en");
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function seconds(s) {
  if (!isFinite(s)) return "–";
  if (s < 0.0995) return `${Math.round(s * 1000)} ms`;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 100) return `${Math.round(s)} s`;
  const minutes = Math.floor(s / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(s % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function percent(part) {
  return `${Math.round(100 * part)} %`;
}

export function clock(at) {
  return at ? new Date(at * 1000).toLocaleTimeString() : "–";
}

export function short(id) {
  return id.slice(0, 8);
}
