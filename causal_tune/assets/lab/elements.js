// Small helpers, numbers as text, and elements. Names and texts of data become text nodes and attributes, never markup.
export const range = n => Array.from({ length: n }, (_, i) => i);
export const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
export const total = values => values.reduce((a, b) => a + b, 0);
export const meanOf = values => { const known = values.filter(v => v === v); return total(known) / known.length; }; // of those that are numbers
export const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

export const rgbOf = hex => hex.match(/[0-9a-f]{2}/gi).map(part => parseInt(part, 16)); // #d55e00

export const twoDigits = v => v.toFixed(2).replace(/^0/, ""); // a radius: .20
export const percent = v => `${(100 * v).toFixed(v < .0995 ? 1 : 0)}%`;
export const superscript = k => "10" + String(k).replace(/./g, c => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
export function amount(v) { // three significant digits, written out where a person would
  if (!v || v !== v || !Number.isFinite(v)) return String(v);
  const size = Math.abs(v);
  if (size >= 1e6 || size < 1e-3) {
    const power = Math.floor(Math.log10(size));
    return `${(v / 10 ** power).toFixed(2)} × ${superscript(power)}`;
  }
  return size >= 1000 ? Math.round(v).toLocaleString("en-US") : String(+v.toPrecision(3));
}
export function signed(v, digits) { // no sign before a zero
  return ((v > 0 ? "+" : "") + v.toFixed(digits)).replace(/^[+-](0(\.0*)?)$/, "$1").replace("-", "−");
}
export const elide = (text, most) => // keeps both ends
  text.length > most ? `${text.slice(0, Math.ceil(most / 2) - 1)}…${text.slice(-Math.floor(most / 2))}` : text;

const solid = children => children.flat(Infinity).filter(child => child != null && child !== false);
export function html(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node[name] = value;
    else if (value != null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...solid(children));
  return node;
}
export const write = (node, text) => { if (node.textContent !== text) node.textContent = text; }; // the same text would be laid out again
export const attribute = (node, name, value) => { if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value); };

// SVG is described first; a card that is drawn again keeps its nodes and changes what differs in them.
export const svg = (tag, attributes = {}, ...children) => ({ tag, attributes, children: solid(children) }); // one text, or descriptions
export const svgNode = description => update(document.createElementNS("http://www.w3.org/2000/svg", description.tag), description);
function update(node, { tag, attributes, children }) {
  const before = node.drawn ?? {};
  for (const name of new Set([...Object.keys(before), ...Object.keys(attributes)])) {
    const value = attributes[name];
    if (value === before[name]) continue;
    if (value == null || value === false) node.removeAttribute(name);
    else node.setAttribute(name, value);
  }
  Object.assign(node, { drawn: attributes, tag });
  if (typeof children[0] === "string") write(node, children[0]);
  else fill(node, children);
  return node;
}
export function fill(parent, descriptions) { // its children become those described; nodes of the same tag stay
  const wanted = solid(descriptions);
  wanted.forEach((one, i) => {
    const node = parent.childNodes[i];
    if (node?.tag === one.tag) update(node, one);
    else if (node) node.replaceWith(svgNode(one));
    else parent.append(svgNode(one));
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}
export const label = (x, y, text, more = {}) => svg("text", { x, y, "font-size": 12, fill: "currentColor", ...more }, String(text));
export const middle = { "text-anchor": "middle" }, soft = { opacity: .72 }, small = { "font-size": 11.5 };
export const stroke = (d, more = {}) => svg("path", { d, fill: "none", stroke: "currentColor", ...more });
export const box = (x, y, width, height, more) => svg("rect", { x, y, width, height, ...more });
export const button = (inside, onclick, more = {}) => html("button", { type: "button", onclick, ...more }, inside);
