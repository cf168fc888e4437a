// Live training: what the files of some runs say, along a slider of iterations. Names and texts become text nodes, never markup.
import { amount, box, button, clamp, fill, html, label, middle, range, small, stroke, svg, svgNode } from "./elements.js";
import { axes, dots, legend, line, markOf, ticksBetween } from "./drawing.js";

const COLORS = [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [230, 159, 0], [86, 180, 233]], DASHES = [null, "6 3", "2 3", "8 3 2 3"];
const QUANTITIES = {
  changed: ["energy changed", (b, a, s) => s / b], kept: ["energy kept", (b, a) => (1 + a / b) ** 2], removed: ["energy removed", (b, a) => (a / b) ** 2],
  added: ["energy added", (b, a, s) => Math.max(s / b - (a / b) ** 2, 0)] };
const LIVE = { running: "running", finished: "finished", stopped: "not finished" };

function isDark() { // what the host writes into the page, or the system's setting
  const light = document.body.dataset.jpThemeLight;
  return light ? light === "false" : matchMedia("(prefers-color-scheme: dark)").matches;
}
function fit(rows) { // low and high of numbers, with some room
  const all = rows.flat().filter(Number.isFinite), low = Math.min(...all), high = Math.max(...all), room = .05 * (high - low || Math.abs(high) || 1);
  return [low - room, high + room];
}

export function openWatch(root, first, link) { // link: live(), ask(content)
  const state = { at: null, off: new Set(), run: null, band: "all bands", quantity: "changed", timer: 0 };
  let data = first, cards = {}, saying = "";
  const taken = () => [...new Set(data.runs.flatMap(run => run.snapshots.map(s => s.at)))].sort((a, b) => a - b);
  const at = () => state.at ?? taken().at(-1) ?? 0;
  const shown = () => data.runs.filter(run => !state.off.has(run.name));
  const look = name => {
    const i = data.runs.findIndex(run => run.name === name);
    return { name, color: COLORS[i % COLORS.length], dash: DASHES[i % DASHES.length], mark: markOf(i) };
  };
  const chosen = () => shown().find(run => run.name === state.run) ?? shown()[0];
  const nearest = run => run?.snapshots.findLast(s => s.at <= at()) ?? run?.snapshots[0];

  // ---- controls
  const slider = html("input", { type: "range", min: 0, "aria-label": "iteration", oninput: e => { state.at = taken()[+e.target.value]; sync(); } }), out = html("output");
  const play = button("Play", () => state.timer ? pause() : start(), { "aria-label": "play the snapshots" });
  const follow = button("Latest", () => { pause(); state.at = null; sync(); }, { "aria-label": "follow the latest snapshot" });
  function pause() { clearInterval(state.timer); state.timer = 0; play.textContent = "Play"; }
  function start() {
    const all = taken();
    state.at = at() === all.at(-1) ? all[0] : at();
    state.timer = setInterval(() => {
      const next = all[all.indexOf(at()) + 1];
      if (next === undefined) return pause();
      state.at = next;
      sync();
    }, 500);
    play.textContent = "Pause";
    sync();
  }
  const select = (name, options, value, act) => {
    const node = html("select", { "aria-label": name, oninput: e => { act(e.target.value); sync(); } }, options.map(o => html("option", { value: o }, o)));
    node.value = value;
    return html("label", { class: "ct-field" }, html("span", {}, name), html("span", { class: "ct-line" }, node));
  };
  const chips = html("div", { class: "ct-field", role: "group", "aria-label": "runs" }), about = html("p", { class: "ct-about", role: "status" });
  const header = html("header", { class: "ct-bar" }, html("h1", {}, "Training"),
    html("label", { class: "ct-field" }, html("span", {}, "iteration"), html("span", { class: "ct-line" }, slider, out)),
    html("span", { class: "ct-line" }, play, follow), chips, about);
  const main = html("main", { class: "ct-cards" });

  // ---- cards
  function card(name, title, ...more) {
    const one = cards[name] = { svg: svgNode(svg("svg", { role: "img", "aria-label": title })), body: html("div", { class: "ct-body" }), note: html("p", { class: "ct-note" }) };
    one.body.append(one.svg);
    one.node = html("section", { class: "ct-card", "data-view": name }, html("div", { class: "ct-head" }, html("h2", {}, title), more), one.body, one.note);
    return one.node;
  }
  function plot(one, series, up, percent = false) { // series: name, xs, ys, look; marks at what was measured
    const width = Math.max(one.body.clientWidth, 200), keys = legend([...new Map(series.map(s => [s.look.name, s.look])).values()], 54, 14, width - 10), height = 210, area = { x: 54, y: keys.bottom + 12, w: width - 70, h: height - keys.bottom - 58 };
    const [low, high] = fit(series.map(s => s.ys)), last = Math.max(...data.runs.map(run => run.iterations), 1);
    const x = v => area.x + area.w * v / last, y = v => area.y + area.h * (high - v) / (high - low);
    const across = { ticks: ticksBetween(0, last, width / 90), at: x, text: String, title: "iteration" };
    const upward = { ticks: ticksBetween(low, high, 5), at: y, text: v => percent ? `${amount(100 * v)}%` : amount(v), far: 46, grid: true };
    one.svg.setAttribute("width", width);
    one.svg.setAttribute("height", height);
    fill(one.svg, [axes(area, across, upward), stroke(`M${x(at())} ${area.y}v${area.h}`, { "stroke-dasharray": "3 3", opacity: .6 }),
      series.map(s => [line(s.look, s.xs.map(x), s.ys.map(y)), s.xs.length < 80 && s.marked !== false && dots(s.look, s.xs.map(x), s.ys.map(y))]), keys.nodes]);
    one.note.textContent = up;
  }
  function drawMap(one) {
    const run = chosen(), taken = nearest(run), width = Math.max(one.body.clientWidth, 200);
    fill(one.svg, []);
    one.svg.setAttribute("height", 0);
    if (!taken) return void (one.note.textContent = "No snapshot yet.");
    if (!run.compared) return void (one.note.textContent = "This adapter changes weights, not features: what it changed is not measured while it trains. `causal-tune passport` does it afterwards.");
    const b = data.bands.indexOf(state.band), sum = row => b < 0 ? row.reduce((p, v) => p + (v ?? 0), 0) : row[b];
    const [, formula] = QUANTITIES[state.quantity], blocks = taken.before[0].length, tall = clamp(Math.floor(330 / blocks), 15, 30), left = 62, w = width - left - 4;
    const values = range(blocks).map(l => data.domains.map((_, d) => formula(sum(taken.before[d][l]), sum(taken.along[d][l]), sum(taken.squared[d][l]))));
    const most = Math.max(...values.flat().filter(Number.isFinite), 1e-12), cell = w / data.domains.length;
    one.svg.setAttribute("width", width);
    one.svg.setAttribute("height", blocks * tall + 26);
    fill(one.svg, [range(blocks).map(l => [label(left - 8, (l + .5) * tall + 4, `block ${l}`, { ...small, "text-anchor": "end" }),
      values[l].map((v, d) => [box(left + d * cell + 1, l * tall + 1, cell - 2, tall - 2, { fill: "var(--ct-blue)", "fill-opacity": Number.isFinite(v) ? (.62 * Math.sqrt(v / most)).toFixed(3) : 0 }),
        label(left + (d + .5) * cell, (l + .5) * tall + 4, Number.isFinite(v) ? `${amount(100 * v)}%` : "–", { ...middle, ...small })])]),
      data.domains.map((name, d) => label(left + (d + .5) * cell, blocks * tall + 18, name, { ...middle, ...small }))]);
    one.note.textContent = `${run.name} after ${taken.at} iterations, in shares of the frozen model's energy, on one or more frames of each domain.`;
  }
  function drawFrames(one) {
    const rows = [["frames", data.frames], ...shown().map(run => [nearest(run) ? `${run.name} after ${nearest(run).at} iterations` : `${run.name}: no snapshot yet`, nearest(run)?.frames ?? []])];
    one.body.replaceChildren(...rows.map(([name, pictures]) => html("div", {}, html("p", { class: "ct-sub" }, name), html("div", { class: "ct-row ct-four" },
      pictures.map((src, i) => html("figure", { class: "ct-picture" }, html("img", { src, alt: `${name}: ${data.probe[i]}` }), html("figcaption", {}, data.probe[i])))))));
    one.note.textContent = "Four fixed frames and what each run predicts for them at the iteration of the slider.";
  }
  const fields = Object.fromEntries([["name", "name of the branch"], ["band", "band, such as dog:low=.1"], ["head_band", "filter of the head"], ["adapter_lr", "adapter's rate, as multiple of lr"]]
    .map(([name, what]) => [name, html("input", { type: "text", "aria-label": what, placeholder: what, "data-field": name })]));
  const go = button("Branch here", () => {
    const changes = Object.fromEntries(Object.entries(fields).map(([name, node]) => [name, node.value.trim()]).filter(([, text]) => text));
    link.ask({ ask: "branch", run: chosen().name, iteration: nearest(chosen()).at, changes });
  }, { class: "ct-main" });
  function drawBranch(one) {
    const run = chosen(), taken = nearest(run);
    go.disabled = !link.live() || !taken?.state;
    one.note.textContent = !link.live() ? "Branching needs Python: causal_tune.training.checkpoint.branch."
      : !taken?.state ? "No state is kept of this iteration: move the slider to another snapshot."
      : saying || `Starts a run that is ${run.name} up to iteration ${taken.at}. Empty fields stay as they are.`;
    go.textContent = taken?.state ? `Branch ${run.name} at ${taken.at}` : "Branch here";
  }
  function build() {
    cards = {};
    const has = what => data.runs.some(what), snapshots = has(run => run.snapshots.length);
    const runs = () => shown().map(run => run.name);
    main.replaceChildren(...[card("loss", "Loss"), has(run => run.validation[0].length) && card("validation", "Validation, mIoU"),
      has(run => Object.keys(run.cutoffs).length) && card("cutoffs", "Learnt cut-offs"), has(run => run.snapshots.some(s => s.tokens != null)) && card("tokens", "Effect of the tokens"),
      snapshots && card("map", "What the adapter does", select("run", runs(), chosen()?.name, v => { state.run = v; }), select("quantity", Object.keys(QUANTITIES), state.quantity, v => { state.quantity = v; }),
        select("band", ["all bands", ...data.bands], state.band, v => { state.band = v; })),
      snapshots && card("frames", "Predictions"), snapshots && card("branch", "Branch")].filter(Boolean));
    if (link.live()) cards.branch?.body.replaceChildren(html("div", { class: "ct-line" }, Object.values(fields), go));
    for (const node of root.querySelectorAll("button, input, select")) node.dataset.lmSuppressShortcuts = "true";
    chips.replaceChildren(html("span", {}, "runs"), html("span", { class: "ct-line" }, data.runs.map(run => {
      const on = !state.off.has(run.name), { color } = look(run.name);
      return button(html("span", {}, `${run.name} (${LIVE[run.status]})`), () => {
        if (on && shown().length < 2) return;
        state.off[on ? "add" : "delete"](run.name);
        build();
      }, { class: "ct-chip", "aria-pressed": String(on), style: on ? `border-color:rgb(${color});box-shadow:inset 0 -3px rgb(${color})` : "", title: run.branch ?? run.name });
    })));
    about.textContent = data.runs.length ? data.runs.filter(run => run.branch).map(run => run.branch).join("; ") : `Nothing to see in ${data.folder} yet: waiting for a run.`;
    sync();
  }
  const series = (name, values) => shown().map(run => ({ look: look(run.name), run: run.name, ...values(run) })).filter(s => s.xs.length);
  function sync() {
    const all = taken(), i = Math.max(all.indexOf(at()), 0);
    slider.max = Math.max(all.length - 1, 0);
    slider.value = i;
    slider.setAttribute("aria-valuetext", out.textContent = String(at()));
    slider.disabled = play.disabled = all.length < 2;
    root.dataset.theme = isDark() ? "dark" : "light";
    const draw = {
      loss: one => plot(one, series("loss", run => ({ xs: run.loss[0], ys: run.loss[1], marked: false })), "Mean over neighbouring iterations."),
      validation: one => plot(one, series("validation", run => ({ xs: run.validation[0], ys: run.validation[1] })), "On the source's validation set.", true),
      cutoffs: one => plot(one, shown().flatMap(run => Object.values(run.cutoffs).flatMap(([xs, low, high]) => [low, high].map(ys => ({ look: look(run.name), xs, ys, marked: false })))),
        "Low and high, in shares of the Nyquist frequency."),
      tokens: one => plot(one, series("tokens", run => ({ xs: run.snapshots.map(s => s.at), ys: run.snapshots.map(s => s.tokens ?? NaN) })), "Share of pixels whose class changes when the tokens' values are zero.", true),
      map: drawMap, frames: drawFrames, branch: drawBranch };
    for (const [name, one] of Object.entries(cards)) draw[name](one);
  }
  root.className = "ct-lab ct-watch";
  root.replaceChildren(header, main);
  const sizes = new ResizeObserver(() => sync()), theme = new MutationObserver(() => sync());
  build();
  sizes.observe(root);
  theme.observe(document.body, { attributes: true });
  const media = matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", sync);
  return {
    set(next) { data = next; build(); },
    say(text) { saying = text; sync(); },
    close() { pause(); sizes.disconnect(); theme.disconnect(); media.removeEventListener("change", sync); },
  };
}

export default {
  render({ model, el }) {
    const root = html("div");
    el.replaceChildren(root);
    const watch = openWatch(root, model.get("_data"), { live: () => true, ask: content => model.send(content) });
    const update = () => watch.set(model.get("_data")), said = () => watch.say(model.get("_message"));
    model.on("change:_data", update);
    model.on("change:_message", said);
    return () => { model.off("change:_data", update); model.off("change:_message", said); watch.close(); };
  },
};
