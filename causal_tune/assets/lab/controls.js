// Controls: plain elements, which a keyboard and a screen reader know. Each has a function that shows the lab's state.
import { attribute, button, html, same, svg, svgNode, write } from "./elements.js";
import { css, markOf, textColor } from "./drawing.js";
import { LABELS } from "./texts.js";

export function controlsOf(lab) { // { header, fields, sync }
  const { data, state, set } = lab, syncs = [];
  const titleOf = name => LABELS[name] ?? name;
  const framed = (tag, name, more, nodes) =>
    html(tag, { class: "ct-field", "data-of": name, ...more }, html("span", {}, titleOf(name)), html("span", { class: "ct-line" }, nodes));
  const field = (name, ...nodes) => framed("label", name, {}, nodes); // one control
  const group = (name, ...nodes) => framed("div", name, { role: "group", "aria-label": titleOf(name) }, nodes); // several
  const synced = (node, sync) => { syncs.push(sync); return node; };

  function choice(name) {
    const select = html("select", { "aria-label": LABELS[name], oninput: e => set({ [name]: e.target.value }) });
    return synced(field(name, select), () => {
      const options = data.choices[name];
      const made = o => html("option", { value: o }, name === "filter" ? data.filters[o].title : o);
      if (!same(options, [...select.options].map(o => o.value))) select.replaceChildren(...options.map(made));
      select.value = state[name];
    });
  }
  function slider(name, text = v => v) {
    const [min, max] = data.ranges[name], out = html("output");
    const input = html("input", { type: "range", min, max, oninput: e => set({ [name]: +e.target.value }) });
    return synced(field(name, input, out), () => {
      input.value = state[name];
      write(out, String(text(state[name])));
      attribute(input, "aria-valuetext", out.textContent);
    });
  }
  function chips(name) { // filled: chosen; an outline: not
    const toggle = option => {
      const on = data.choices[name].filter(o => state[name].includes(o) !== (o === option));
      if (on.length || name !== "domains") set({ [name]: on }); // the last one stays
    };
    const mark = i => svgNode(svg("svg", { width: 12, height: 12, "aria-hidden": true }, svg("path", { d: `M6 6${markOf(i)}`, fill: "currentColor" })));
    const buttons = data.choices[name].map((option, i) =>
      button([name === "domains" && mark(i), html("span", {}, option)], () => toggle(option), { class: "ct-chip", title: option }));
    return synced(group(name, buttons), () => buttons.forEach((button, i) => {
      const option = data.choices[name][i], on = state[name].includes(option), rgb = name === "domains" ? data.colors[option] : [0, 98, 155];
      attribute(button, "aria-pressed", on);
      attribute(button, "style", on ? `background:${css(rgb)};color:${textColor(rgb)};border-color:${css(rgb)}` : "");
    }));
  }
  function cutoffs() { // two ranges over each other, which stop at each other
    const [least, most] = data.ranges.cuts, out = html("output"), track = html("span", { class: "ct-track" });
    const moved = (i, v) => set({ cuts: i ? [state.cuts[0], Math.max(v, state.cuts[0])] : [Math.min(v, state.cuts[1]), state.cuts[1]] });
    const inputs = ["low", "high"].map((edge, i) => html("input", { type: "range", class: `ct-${edge}`, min: least, max: most, step: .01,
      "aria-label": `${edge} cut-off`, oninput: e => moved(i, +e.target.value) }));
    return synced(group("cuts", html("span", { class: "ct-two-ends" }, track, inputs), out), () => {
      inputs.forEach((input, i) => { input.value = state.cuts[i]; });
      const [from, to] = state.cuts.map(v => 100 * (v - least) / (most - least));
      track.style.background = `linear-gradient(90deg, var(--ct-line) ${from}%, var(--ct-blue) ${from}% ${to}%, var(--ct-line) ${to}%)`;
      write(out, state.cuts.map(v => v.toFixed(2)).join(" – "));
    });
  }
  function flag(name) {
    const input = html("input", { type: "checkbox", oninput: e => set({ [name]: e.target.checked }) });
    return synced(field(name, input), () => { input.checked = state[name]; });
  }
  let playing = 0;
  function stop() { clearInterval(playing); playing = 0; play.textContent = "▶"; }
  const play = button("▶", () => {
    if (playing) return stop();
    play.textContent = "■";
    playing = setInterval(() => state.layer + 1 < data.layers.length && lab.root.isConnected ? set({ layer: state.layer + 1 }) : stop(), 700);
  }, { "aria-label": "play the blocks", class: "ct-play" });

  const presets = Object.entries(data.presets).map(([name, values]) => button(name, () => set(values)));
  const others = ["model", "domain", "against", "reference"].filter(name => data.choices[name]).map(choice);
  const about = html("p", { class: "ct-about", role: "status" });
  const header = html("header", { class: "ct-bar" }, html("h1", {}, "Frequency lab"), choice("filter"), group("presets", presets), cutoffs(),
    slider("order"), group("play", play), slider("layer", v => data.layers[v]), chips("domains"), others,
    data.picks.length > 1 && slider("image", v => data.picks[v]), choice("scale"), choice("cells"), flag("keep_dc"), chips("views"), about);
  return {
    header, about, choice, slider, stop,
    sync() {
      syncs.forEach(sync => sync());
      header.querySelector("[data-of=order]").hidden = state.filter !== "butterworth";
    },
  };
}

export function stateFits(data, name, v) { // whether an address names what this lab has
  if (!Object.hasOwn(data.state, name) || Array.isArray(v) !== Array.isArray(data.state[name])) return false;
  const all = [v].flat(), options = name === "keep_dc" ? [false, true] : data.choices[name];
  if (options) return all.every(one => options.includes(one)) && (all.length > 0 || name !== "domains");
  const ranges = name === "coefficient" ? data.grid.map(n => [0, n - 1]) : [data.state[name]].flat().map(() => data.ranges[name] ?? []);
  const inside = (x, [low, high]) => x >= low && x <= high && (name === "cuts" ? typeof x === "number" : Number.isInteger(x));
  return all.length === ranges.length && all.every((x, i) => inside(x, ranges[i]));
}
