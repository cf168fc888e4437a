// Cards: a view with its title, its buttons, its caption and a tooltip; and how a view becomes a picture.
import { box, button, clamp, html, label, middle, svg, svgNode } from "./elements.js";
import { CARD } from "./drawing.js";
import { captionOf } from "./texts.js";

const HOLDS = { pictures: ["features", "segmentation", "cause"], plotly: ["information", "outliers"], words: ["words"] }; // beside an SVG
const WITH_KEYS = ["zones", "difference", "map"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function makeCard(lab, name, tools, extra) {
  const card = lab.cards[name] = { name, width: 600, canvases: [], title: html("h2"), sub: html("span", { class: "ct-sub" }) };
  const kind = Object.keys(HOLDS).find(kind => HOLDS[kind].includes(name));
  card.svg = svgNode(svg("svg", { role: "img", "aria-label": name, width: 0, height: 0 }));
  if (kind) card[kind] = html("div", { class: `ct-${kind}` });
  card.body = html("div", { class: "ct-body" }, card.svg, card[kind]);
  const head = html("div", { class: "ct-head" }, html("div", { class: "ct-titles" }, card.title, card.sub), html("span", { class: "ct-tools" }, tools(card)));
  const note = html("p", { class: "ct-note" }, captionOf(lab.data, name));
  card.node = html("section", { class: "ct-card", "data-view": name }, head, extra, card.body, note);
  const place = e => { const at = card.body.getBoundingClientRect(); return [e.clientX - at.left, e.clientY - at.top]; };
  card.body.onpointermove = e => lab.tip.show(card.tell?.(...place(e)), e);
  card.body.onpointerleave = () => lab.tip.hide();
  card.svg.onclick = e => card.click?.(...place(e));
  if (WITH_KEYS.includes(name)) card.svg.setAttribute("tabindex", 0);
  card.svg.onkeydown = e => {
    const by = ARROWS[e.key];
    if (by && card.move) { e.preventDefault(); e.stopPropagation(); card.move(...by); }
  };
  return card.node;
}
export function tooltip(root) {
  const node = html("div", { class: "ct-tip", hidden: true });
  return {
    node, hide() { node.hidden = true; },
    show(text, e) {
      const at = root.getBoundingClientRect();
      node.hidden = !text;
      if (!text) return;
      node.textContent = text;
      node.style.cssText = `left:${clamp(e.clientX - at.left + 14, 0, at.width - node.offsetWidth - 4)}px;top:${e.clientY - at.top + 16}px`;
    },
  };
}

// ---- pictures of a card
function pixels(node, width = node.naturalWidth ?? node.width, height = node.naturalHeight ?? node.height) { // a data URI
  const canvas = html("canvas", { width, height });
  canvas.getContext("2d").drawImage(node, 0, 0, width, height);
  return canvas.toDataURL();
}
function pictureOf(card) { // one SVG of all that a card shows, on white
  const at = card.body.getBoundingClientRect(), width = Math.round(at.width), height = Math.round(at.height) + 34, color = "#1c1e21";
  const place = r => ({ x: r.left - at.left, y: r.top - at.top + 34, width: r.width, height: r.height });
  const all = (what, make) => [...card.body.querySelectorAll(what)].map(node => [node, place(node.getBoundingClientRect())])
    .filter(([, r]) => r.width).map(([node, r]) => make(node, r));
  const copied = (node, r) => {
    const copy = node.cloneNode(true);
    for (const [name, v] of Object.entries(r)) copy.setAttribute(name, v);
    return copy;
  };
  const pixelated = { preserveAspectRatio: "none", style: "image-rendering:pixelated" };
  const whole = svgNode(svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, color, fill: color, "font-family": "system-ui, sans-serif" },
    box(0, 0, width, height, { fill: "#fff" }), label(8, 22, card.title.textContent, { "font-size": 16, "font-weight": 600 }),
    all("canvas, img", (node, r) => svg("image", { ...r, ...pixelated, href: pixels(node) })),
    all("figcaption", (node, r) => label(r.x + r.width / 2, r.y + 13, node.textContent, middle))));
  whole.append(...all("svg", copied));
  return new XMLSerializer().serializeToString(whole).replaceAll(CARD, "#fff");
}
const dataURI = text => "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
async function raster(text, scale = 2) {
  const image = new Image();
  image.src = dataURI(text);
  await image.decode();
  return pixels(image, image.width * scale, image.height * scale);
}
export async function saveCard(lab, card, kind) { // a data URI; pictures are light
  const { plotly } = card;
  if (plotly) {
    const size = { format: kind.toLowerCase(), scale: 2, width: plotly.offsetWidth, height: plotly.offsetHeight };
    return (await lab.link.load()).toImage(plotly, size);
  }
  const text = lab.inLight(card.name, () => pictureOf(card));
  return kind === "SVG" ? dataURI(text) : raster(text);
}
export async function downloadCard(lab, card, kind) {
  html("a", { href: await saveCard(lab, card, kind), download: `frequency_lab_${card.name}.${kind.toLowerCase()}` }).click();
}
export async function allPictures(lab) { // name of a file -> base64, of all that is shown
  await new Promise(done => setTimeout(done, 600)); // all is drawn, at the width of this page
  const out = {};
  for (const card of Object.values(lab.cards).filter(one => one.body.offsetWidth && !one.words)) for (const kind of ["png", "svg"]) {
    const [head, data] = (await saveCard(lab, card, kind.toUpperCase())).split(/,(.*)/s);
    out[`${card.name}.${kind}`] = head.endsWith("base64") ? data : btoa(unescape(data));
  }
  return out;
}
export async function copyText(root, text, at) {
  try { await navigator.clipboard.writeText(text); }
  catch { const area = html("textarea"); area.value = text; root.append(area); area.select(); document.execCommand("copy"); area.remove(); }
  at.textContent = "Copied";
  setTimeout(() => { at.textContent = "Copy"; }, 1500);
}
export const cardTools = (lab, sentences) => card => card.name === "words"
  ? button("Copy", e => copyText(lab.root, sentences(lab).join("\n"), e.target))
  : ["SVG", "PNG"].map(kind => button(kind, () => downloadCard(lab, card, kind), { "aria-label": `save as ${kind}` }));
