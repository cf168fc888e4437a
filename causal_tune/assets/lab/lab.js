// The lab in an element: its state, what a move redraws, and the host it lives in.
// link: told(values), ask(content), live() -> whether a kernel answers, figures, load() -> Plotly
import { button, html, range, rgbOf, same, write } from "./elements.js";
import { colorScale, SCALES } from "./drawing.js";
import { refusal } from "./filters.js";
import { numbersOf } from "./numbers.js";
import { energyOfReference, energyShown, sentences, SPECTRAL_VIEWS } from "./views.js";
import { PICTURE_VIEWS, question } from "./pictures.js";
import { PLOT_VIEWS } from "./plots.js";
import { canPatch, CAUSE_VIEWS, causeOf } from "./cause.js";
import { allPictures, cardTools, makeCard, saveCard, tooltip } from "./cards.js";
import { controlsOf } from "./controls.js";
import { passportButton } from "./passport.js";
import { captionOf } from "./texts.js";

const VIEWS = { ...SPECTRAL_VIEWS, ...PICTURE_VIEWS, ...PLOT_VIEWS, ...CAUSE_VIEWS };
const FIRST = ["curves", "plane", "zones"]; // drawn in the next frame; all others when the moves rest
const GROUPS = { coefficient: "difference", iou: "segmentation", information: "evidence", outliers: "evidence", measure: "evidence", map: "cause" };
const GONE = "The kernel is gone: this is the lab's last state. Filters, blocks and domains still move; what needs the model does not.";

const onPaper = matchMedia("print");
function isDark() { // by what JupyterLab, VS Code and Colab write into the page, or the system's setting; paper is white
  if (onPaper.matches) return false;
  const { body, documentElement: page } = document, light = body.dataset.jpThemeLight;
  if (light) return light === "false";
  if (body.dataset.vscodeThemeKind) return !body.dataset.vscodeThemeKind.endsWith("light");
  const theme = page.getAttribute("theme") || page.dataset.theme;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

export function openLab(root, data, start, link) {
  data = { ...data, colors: Object.fromEntries(Object.entries(data.colors).map(([name, hex]) => [name, rgbOf(hex)])) };
  const state = { ...start }, answers = new Map(), untold = new Set();
  const [amounts, changes] = SCALES.map(colorScale), greys = range(256).map(i => [i, i, i]);
  const lab = { root, data, state, link, answers, numbers: numbersOf(data), scales: { amounts, changes, greys }, cards: {}, dark: false, tip: tooltip(root),
    band: { filter: "dog", low: .2, high: .7, order: 2, keep_dc: false }, set, visible, say, inLight };
  let frame = 0, rest = 0, refiltered = true, asked = "", live = link.live();
  if (data.answer) answers.set(question(data.state), data.answer);

  // ---- elements
  const controls = controlsOf(lab), cause = causeOf(lab), tools = cardTools(lab, sentences), card = (name, extra) => makeCard(lab, name, tools, extra);
  const measure = button("Measure", () => link.ask({ ask: "measure" }), { class: "ct-main" }), progress = html("span", { class: "ct-sub", role: "status" });
  const measuring = html("section", { class: "ct-card", "data-view": "measure" },
    html("div", { class: "ct-head ct-measure" }, html("h2", {}, "Evidence"), measure, progress));
  const main = html("main", { class: "ct-cards" }, html("div", { class: "ct-column" }, card("curves"), card("plane")),
    ["zones", "features", "difference", "coefficient"].map(name => card(name)), data.heads && ["segmentation", "iou"].map(name => card(name)),
    card("cause", html("div", { class: "ct-bar" }, canPatch(lab) && [["disturbed", "twin", "patch_mode"].map(controls.choice), controls.slider("severity")])),
    card("map", canPatch(lab) && html("div", { class: "ct-head ct-measure" }, cause.go, cause.progress)),
    card("words"), measuring, card("information"), card("outliers"));
  const lines = texts => texts.map(text => html("p", {}, text)), n = data.notes.length;
  const notes = n > 0 && html("details", {}, html("summary", {}, `${n} note${n > 1 ? "s" : ""} on the images`), lines(data.notes));
  root.className = "ct-lab";
  root.replaceChildren(controls.header, main, html("footer", { class: "ct-foot" }, link.live() && passportButton(lab), notes, lines(data.foot)), lab.tip.node);
  for (const node of root.querySelectorAll("button, input, select, [tabindex]")) node.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take the keys

  // ---- from a move to a picture
  function visible(name) { const of = GROUPS[name] || name; return !data.optional.includes(of) || state.views.includes(of); }
  function draw(name) {
    const card = lab.cards[name], there = !["information", "outliers"].includes(name) || link.figures[name];
    if (!card) return;
    card.node.hidden = !visible(name) || !there;
    if (!card.node.hidden) VIEWS[name](card, lab);
  }
  const wrong = () => refusal(data.filters[state.filter], state.cuts); // why these cut-offs are not allowed
  function set(values, quiet) { // what a control, a preset, a click or Python says
    const moved = Object.keys(values).filter(name => !same(values[name], state[name]));
    if (!moved.length) return;
    Object.assign(state, values);
    if (!quiet) moved.forEach(name => untold.add(name));
    refresh();
  }
  function refresh() {
    const why = wrong(), [low, high] = state.cuts, now = { filter: state.filter, low, high, order: state.order, keep_dc: state.keep_dc };
    if (!why && !same(now, lab.band)) {
      lab.band = now;
      refiltered = true;
    }
    say(why);
    frame ||= requestAnimationFrame(() => {
      for (const name of FIRST) if (refiltered || name !== "plane") draw(name); // the plane shows the filter alone
      controls.sync();
      measuring.hidden = !visible("measure");
      setTimeout(tell); // once the frame is on the screen
      frame = 0;
      refiltered = false;
    });
    clearTimeout(rest);
    rest = setTimeout(settle, 90);
  }
  function tell() { // a frame's moves at once
    if (untold.size) link.told(Object.fromEntries([...untold].map(name => [name, state[name]])));
    untold.clear();
  }
  function settle() {
    clearTimeout(rest);
    cause.sync();
    cause.ask();
    const key = question(state), wanted = link.live() && data.heads && visible("segmentation") && !wrong();
    const left = Object.keys(lab.cards).filter(name => !FIRST.includes(name));
    if (wanted && !answers.has(key) && key !== asked) link.ask({ ask: "segmentation", key: asked = key, state });
    (function next() { // a key that is pressed meanwhile waits for one view at most
      if (!left.length) return link.settled?.(state);
      draw(left.shift());
      rest = setTimeout(next);
    })();
  }
  function say(why, text = link.said?.() || data.about) {
    const gone = link.gone?.() ? GONE : "";
    controls.about.classList.toggle("ct-wrong", !!why || !!gone);
    write(controls.about, why || gone || text);
  }
  function showProgress({ text = "", wrong = false, busy = false } = {}) { // of a measurement, in its own card
    measure.disabled = busy || !link.live() || !!data.cannot_measure;
    progress.classList.toggle("ct-wrong", wrong);
    progress.textContent = !link.live() ? "measuring needs the model: open the lab in Jupyter" : text || data.cannot_measure || captionOf(data, "measure");
  }
  showProgress();

  // ---- the host: width, theme, kernel, end
  function inLight(name, act) { // pictures that leave the lab lie on white
    if (!lab.dark) return act();
    lab.dark = false;
    draw(name);
    try { return act(); } finally { lab.dark = true; draw(name); }
  }
  function fit() { // draw what has another width now, on paper too
    for (const card of Object.values(lab.cards)) {
      const width = Math.floor(card.body.clientWidth);
      if (width && width !== card.width) { card.width = width; draw(card.name); }
    }
  }
  const watch = new ResizeObserver(fit);
  const theme = () => {
    const now = isDark();
    root.dataset.theme = now ? "dark" : "light";
    if (now !== lab.dark) { lab.dark = now; Object.keys(lab.cards).forEach(draw); }
  };
  const media = matchMedia("(prefers-color-scheme: dark)"), hosts = new MutationObserver(theme);
  for (const node of [document.documentElement, document.body]) hosts.observe(node, { attributes: true });
  for (const one of [media, onPaper]) one.addEventListener("change", theme);
  onPaper.addEventListener("change", fit);
  const pulse = link.gone && setInterval(() => { // whether the kernel is still there
    if (link.live() === live) return;
    live = link.live();
    say(wrong());
    showProgress();
    settle();
  }, 1000);
  theme();
  for (const one of Object.values(lab.cards)) { one.width = Math.floor(one.body.clientWidth) || one.width; watch.observe(one.body); }
  refresh();
  return Object.assign(lab, {
    draw, showProgress,
    words: () => sentences(lab), gain: () => [...lab.numbers.gain(lab.band)], shares: () => lab.numbers.shares(lab.band),
    curve: () => lab.numbers.curve(lab.band), change: share => [...lab.numbers.change(energyShown(lab), energyOfReference(lab), share)],
    saved: (card, kind) => saveCard(lab, card, kind), pictures: () => allPictures(lab),
    patched(message) { cause.hear(message); settle(); },
    answer(key, part) {
      answers.set(key, { ...answers.get(key), ...part });
      if (key === question(state)) ["segmentation", "iou"].forEach(draw);
    },
    close() {
      for (const one of [watch, hosts]) one.disconnect();
      for (const one of [media, onPaper]) one.removeEventListener("change", theme);
      onPaper.removeEventListener("change", fit);
      controls.stop();
      clearInterval(pulse);
      clearTimeout(rest);
      cancelAnimationFrame(frame);
    },
  });
}
