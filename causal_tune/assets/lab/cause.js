// Cause: a band of the undisturbed twin's features in the disturbed image's pass, for one image and as a map of all blocks and bands.
// Python measures (causal_tune.lab.models); what it found is kept here by what was asked, and drawn.
import { box, button, html, label, middle, percent, signed, small, soft, stroke } from "./elements.js";
import { css, dotted, numberPanels, ticksBetween } from "./drawing.js";
import { absent, figure, picture } from "./pictures.js";
import { blockOf, titled } from "./views.js";

const ASKED = ["disturbed", "severity", "twin", "patch_mode", "image", "block", "patch_band"], OF_MAP = 4; // a map depends on the first four
const NO_HEAD = "This needs a segmentor with a trained head, which this model lacks. `causal-tune train` trains one; "
  + "`causal-tune lab --checkpoint RUN` opens the lab on it.";
const NO_TWIN = "This needs domains that show the same scenes with the same labels, or corruptions: pip install imagecorruptions.";
const STOPPED = "stopped before its first column: nothing was computed yet";
const KINDS = { restored: "restored: now as in the twin's prediction", broken: "newly broken", left: "still changed" };

// ---- what is asked, and what came back
export const canPatch = ({ state }) => state.disturbed != null;
export const patchSetting = ({ data, state }) => ({ disturbed: state.disturbed, severity: data.domains.includes(state.disturbed) ? 0 : state.severity,
  twin: state.twin, patch_mode: state.patch_mode, image: data.picks[state.image] ?? 0, block: data.layers[state.layer], patch_band: state.patch_band });
const keyOf = (setting, n = ASKED.length) => JSON.stringify(ASKED.slice(0, n).map(name => setting[name]));
export const patchExample = lab => lab.found.examples.get(keyOf(patchSetting(lab)));
export const patchMap = lab => lab.found.maps.get(keyOf(patchSetting(lab), OF_MAP));

export function causeOf(lab) { // { bar, ask, hear, sync }: the controls of the view, its questions and answers
  const { data, link } = lab, examples = new Map(), maps = new Map();
  let asked = "";
  lab.found = { examples, maps };
  const ask = content => link.ask({ ...content, setting: patchSetting(lab) });
  const go = button("Fill the map", () => ask({ ask: patchMap(lab)?.running ? "stop" : "map" }), { class: "ct-main" });
  const progress = html("span", { class: "ct-sub", role: "status" });
  const hear = ({ setting, rows, why, ...map }) => {
    if (rows || why) examples.set(keyOf(setting), { rows, why });
    if (map.models) maps.set(keyOf(setting, OF_MAP), { ...map, byCell: cellsOf(map.models) });
  };
  for (const one of data.patched) hear(one);
  return {
    go, progress, hear,
    ask() { // for what is shown and not known yet
      const key = keyOf(patchSetting(lab));
      if (canPatch(lab) && link.live() && lab.visible("cause") && !examples.has(key) && key !== asked) { asked = key; ask({ ask: "cause" }); }
    },
    sync() {
      const map = patchMap(lab), live = link.live();
      go.hidden = !live || !canPatch(lab);
      go.textContent = map?.running ? "Stop" : map?.models.length ? "Go on" : "Fill the map";
      go.disabled = !!map?.complete;
      const started = map?.models.length, meant = live && "every band at every block; minutes for a large model";
      progress.textContent = canPatch(lab) && ((map?.running || started) && map.text || meant) || ""; // of an empty map in a file the view says all
      const severity = lab.root.querySelector("[data-of=severity]");
      if (severity) severity.hidden = data.domains.includes(lab.state.disturbed);
    },
  };
}
const cellsOf = models => models.map(({ rows }) => new Map(rows.map(row => [`${row.block} ${row.band}`, row])));

// ---- one image
export function keyLine(row) { // the colours of a picture of changes, with counts
  const changed = row.restored + row.left, rest = row.pixels - changed, of = { restored: changed, left: changed, broken: rest };
  return Object.entries(KINDS).map(([kind, text]) => html("span", { class: "ct-key" }, html("i", { style: `background:${css(row.colors[kind])}` }),
    `${text}: ${row[kind].toLocaleString("en-US")} of ${of[kind].toLocaleString("en-US")} ${kind === "broken" ? "other" : "changed"} pixels`
    + (of[kind] ? ` (${percent(row[kind] / of[kind])})` : "")));
}
const placeOf = ({ data, state }) => `block ${data.layers[state.layer]}, ${data.bands[state.patch_band]}`;
function cause(card, lab) {
  const { data, state } = lab;
  if (!canPatch(lab)) return absent(card, "What a band of the twin repairs", data.heads ? NO_TWIN : NO_HEAD);
  const answer = patchExample(lab), title = `What a band of ${state.twin} repairs in ${state.disturbed}: ${placeOf(lab)}`;
  const waiting = lab.link.live() ? "running the model …" : "this example was not computed before the export; the map says which cells were";
  if (!answer?.rows?.length) return absent(card, title, answer?.why || waiting);
  titled(card, title, state.patch_mode);
  if (card.answer === answer) return;
  card.answer = answer;
  card.pictures.replaceChildren(...answer.rows.flatMap(row => {
    if (row.absent) return [html("p", {}, `${row.model} The head does not depend on this block, or its grid has no coefficient in this band.`.trim())];
    const head = (name, i) => row.model && !i ? `${row.model}: ${name}` : name;
    return [html("div", { class: "ct-row" }, row.pictures.map((src, i) => figure(head(row.heads[i], i), picture(src)))),
      html("p", { class: "ct-keys", role: "status" }, keyLine({ ...row, colors: data.change_colors }))];
  }));
}

// ---- the map
const inPoints = v => signed(v, Math.abs(v) < 9.95 ? 1 : 0), between = (low, high) => `${inPoints(low)} to ${inPoints(high)}`;
export const stands = row => row.excess_low > 0; // above random coefficients of equal energy
export function cellText(row) { // all that is known of a cell
  return [`${inPoints(row.mean)} points [${between(row.mean_low, row.mean_high)}]`,
    `put in alone ${inPoints(row.recover)}, missing alone ${inPoints(row.damage)}`,
    row.excess != null && `${inPoints(row.excess)} more than coefficients of equal energy [${between(row.excess_low, row.excess_high)}]`,
    row.energy_share != null && `${percent(row.energy_share)} of the difference's energy`,
    row.restored != null && `${percent(row.restored)} of the changed pixels restored, ${percent(row.broken)} of the others broken`].filter(Boolean);
}
const extent = rows => { // of the points that are drawn of some cells
  const ends = rows.flatMap(row => row ? [row.mean_low, row.mean_high, row.recover, row.damage, 0] : 0), low = Math.min(...ends);
  return [low, Math.max(...ends, low + 1)];
};
function profile(area, rows, tall, blue, [low, high], last) { // of one block: both directions and the interval of their mean; energy beside them
  const energy = 64, w = area.w - energy - 18;
  const x = v => area.x + w * (v - low) / (high - low), y = i => area.y + (i + .5) * tall;
  const bars = area.x + w + 18, bottom = area.y + rows.length * tall;
  return [
    stroke(`M${x(0)} ${area.y}V${bottom}`, dotted),
    last && ticksBetween(low, high, Math.max(w / 60, 2)).map(v => [stroke(`M${x(v)} ${bottom}v4`, { opacity: .5 }), label(x(v), bottom + 16, signed(v, 0), { ...middle, ...small })]),
    last && label(area.x + w / 2, bottom + 34, "points", { ...middle, ...soft }),
    label(bars, area.y - 7, "energy", small),
    rows.map((row, i) => row && [
      box(x(row.mean_low), y(i) - 6, Math.max(x(row.mean_high) - x(row.mean_low), 1), 12, { fill: blue, opacity: .22 }),
      stroke(`M${x(row.recover)} ${y(i)}H${x(row.damage)}`, { stroke: blue, "stroke-width": 2 }),
      stroke(`M${x(row.recover)} ${y(i)}m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z`, { fill: blue, stroke: blue }),
      stroke(`M${x(row.damage)} ${y(i)}m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z`, { fill: "var(--ct-card, #fff)", stroke: blue, "stroke-width": 1.8 }),
      row.energy_share != null && [box(bars, y(i) - 5, Math.max((energy - 30) * row.energy_share, 1), 10, { fill: "currentColor", opacity: .35 }),
        label(bars + (energy - 30) * row.energy_share + 4, y(i) + 4, percent(row.energy_share), small)]]),
  ];
}
function map(card, lab) {
  const { data, state } = lab, found = patchMap(lab), title = "Points that each band repairs, by block";
  card.node.hidden = !lab.visible("map") || !canPatch(lab);
  if (card.node.hidden) return null;
  if (!found?.models.length) return absent(card, title, lab.link.live() ? "not measured yet" : found ? STOPPED : "no map was computed before the export");
  const { models, byCell } = found, { pairs } = models[0], several = models.length > 1, of = (p, i, j) => byCell[p].get(`${data.layers[j]} ${data.bands[i]}`);
  const gaps = models.map(({ model, gap }) => `${several ? `${model}: ` : ""}${gap.gap.toFixed(1)} points [${between(gap.low, gap.high)}]`).join("; ");
  const chosen = models.map((_, p) => of(p, state.patch_band, state.layer)), m = Math.max(models.findIndex(one => one.model === state.model), 0);
  titled(card, title, `${state.disturbed} costs ${gaps} of mIoU over ${pairs} image${pairs > 1 ? "s" : ""}; ${state.patch_mode}.`
    + (chosen[m] ? ` B${placeOf(lab).slice(1)}: ${cellText(chosen[m]).join("; ")}.` : ""));
  const values = models.map((_, p) => data.bands.map((_, i) => data.layers.map((_, j) => of(p, i, j)?.mean ?? NaN)));
  const wide = card.width > 860, room = wide ? 300 : 0, rows = p => data.bands.map((_, i) => of(p, i, state.layer)), span = extent(models.flatMap((_, p) => rows(p)));
  numberPanels(card, { heads: several ? models.map(one => one.model) : [""], rows: data.bands, columns: data.layers, values, differs: true, title: "block (from 0)",
    scaled: values.map(lines => lines.slice(0, -1)), scale: lab.scales.changes, chosen: () => [state.patch_band, state.layer], room, top: 24, below: wide ? 0 : 26 + models.length * (16 * data.bands.length + 50),
    go: (band, layer, p) => lab.set({ patch_band: band, layer, ...several && { model: models[p].model } }),
    mark: (i, j, p) => of(p, i, j) && stands(of(p, i, j)) ? "▲" : "",
    under: (i, j, p) => { const row = of(p, i, j); return row && between(row.mean_low, row.mean_high); },
    tell: (i, j, p) => { const row = of(p, i, j); return row && [`block ${data.layers[j]}, ${data.bands[i]}`, ...cellText(row)].join("\n"); },
    more: (areas, tall, bottom) => models.map((one, p) => {
      const area = wide ? { x: card.width - room + 16, y: areas[p].y, w: room - 22 } : { x: areas[p].x, y: bottom + 66 + p * (16 * data.bands.length + 50), w: card.width - areas[p].x - 10 };
      const names = !wide && data.bands.map((name, i) => label(area.x - 8, area.y + (i + .5) * 16 + 4, name, { "text-anchor": "end", ...small }));
      return [label(wide ? area.x : 8, area.y - 7, `block ${blockOf(lab)}: ● alone, ○ missing`, small), names, profile(area, rows(p), wide ? tall : 16, lab.dark ? "#56b4e9" : "#0072b2", span, p === models.length - 1)];
    }) });
}
export const CAUSE_VIEWS = { cause, map };
