// What somebody who sees badly, or uses no mouse, would stumble over on the page that is open. Runs in it.
const numbers = (colour) => {
  const found = colour.match(/[\d.]+/g).map(Number);
  return [...found.slice(0, 3), found.length > 3 ? found[3] : 1];
};
const over = (front, back) => [0, 1, 2].map((n) => front[n] * front[3] + back[n] * (1 - front[3]));
const light = (colour) => {
  const [r, g, b] = colour.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const behind = (element) => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.unshift(numbers(getComputedStyle(at).backgroundColor));
  return layers.reduce((back, layer) => over(layer, back), [255, 255, 255]);
};
const complaints = [];
const pale = (element, back, text) => {
  const ratio = contrast(over(numbers(getComputedStyle(element).color), back), back);
  if (ratio < 4.5) complaints.push(`${ratio.toFixed(2)}: ${text.trim().slice(0, 40)}`);
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  const shown = element.checkVisibility() && element.getClientRects().length && !element.closest("noscript, option, :disabled");
  if (!shown || !texts.currentNode.data.trim()) continue;
  pale(element, behind(element), texts.currentNode.data);
  const fill = element.closest(".bar")?.querySelector("div");
  if (fill) {
    const style = getComputedStyle(fill);
    const [r, g, b] = numbers(style.backgroundColor);
    pale(element, over([r, g, b, Number(style.opacity)], behind(fill.parentElement)), `${texts.currentNode.data} in its bar`);
  }
}
for (const element of document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")) {
  if (!element.checkVisibility() || element.id === "main") continue;
  const label = element.ariaLabel || element.labels?.[0]?.textContent || element.textContent || element.value;
  if (!label?.trim()) complaints.push(`no name: ${element.outerHTML.slice(0, 60)}`);
  if (element.tabIndex > 0) complaints.push(`out of order: ${element.outerHTML.slice(0, 60)}`);
  if (element.tabIndex === 0 && element.ariaLabel && !element.role && element.localName === "pre") complaints.push("no role");
}
const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
if (wide > 1) complaints.push(`wider than the window by ${wide} pixels`);
return complaints;
