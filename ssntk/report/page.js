"use strict";
(() => {
// ---------------------------------------------------------------- elements

const data = JSON.parse(document.getElementById("data").textContent);
const cycles = data.kind === "towards-of-cycles";
const towards = data.kind === "towards" || cycles;
const { points } = data;
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  // Strings become text nodes, never markup.
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const known = (x) => typeof x === "number" && Number.isFinite(x);

// ---------------------------------------------------------------- numbers

const raised = (n) => String(n).replace("-", "⁻").replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]);
const signed = (text) => text.replace("-", "−");

/** A number as a reader expects it; what is not known is said to be so. */
function show(x, digits = 5) {
  if (!known(x)) return "not known";
  const size = Math.abs(x);
  if (x === 0 || (size >= 1e-3 && size < 1e5)) return signed(String(Number(x.toPrecision(digits))));
  const [mantissa, power] = x.toExponential(digits - 1).split("e");
  return `${signed(String(Number(mantissa)))}×10${raised(Number(power))}`;
}
const complex = ([re, im]) =>
  !known(re) || !known(im) ? "not known" : im === 0 ? show(re) : `${show(re)} ${im < 0 ? "−" : "+"} ${show(Math.abs(im))}i`;
const named = (label, units) => (units ? `${label} (${units})` : label);
const value = (x) => (typeof x === "string" ? x : show(x));

function median(values) {
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

// ---------------------------------------------------------------- scales

/** A scale from `domain` to `range`; `kind` is "linear" or "log". */
function scaleOf(kind, domain, range) {
  const f = kind === "log" ? Math.log10 : (x) => x;
  let [a, b] = domain.map(f);
  if (a === b) [a, b] = [a - 0.5, b + 0.5];
  const at = (x) => range[0] + ((f(x) - a) / (b - a)) * (range[1] - range[0]);
  const inside = (x) => (f(x) - a) / (b - a) > -1e-6 && (f(x) - a) / (b - a) < 1 + 1e-6;
  const span = kind === "log" ? [10 ** a, 10 ** b] : [a, b];
  return { kind, at, inside, domain: span, range };
}

/** The range of those values that are known (of a log scale: positive), with some room. */
function extent(values, kind, room = 0.05) {
  const good = values.filter((x) => known(x) && (kind !== "log" || x > 0));
  if (!good.length) return kind === "log" ? [0.1, 10] : [0, 1];
  let low = Infinity, high = -Infinity;
  for (const x of good) { low = Math.min(low, x); high = Math.max(high, x); }
  if (kind === "log") {
    const more = Math.max((high / low) ** room, 1.12);
    return [low / more, high * more];
  }
  const more = (high - low) * room || Math.abs(high) * 0.1 || 1;
  return [low - more, high + more];
}

const wantsLog = (values) => {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return values.length > 1 && low > 0 && high / low >= 50;
};

function linearTicks([low, high], count) {
  const rough = Math.abs(high - low) / Math.max(count, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(Math.min(low, high) / step - 1e-9); i * step <= Math.max(low, high) + step * 1e-9; i++) ticks.push(i * step);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const large = Math.max(Math.abs(low), Math.abs(high));
  // Where neighbouring ticks differ in the sixth digit or beyond, what they share is written once.
  const base = step < large * 1e-5 ? ticks[0] : 0;
  const text = (x) => {
    const rest = x - base;
    if (Math.abs(rest) < step * 1e-6) return "0";
    return decimals > 4 || large >= 1e6 ? show(rest, 3) : signed(rest.toFixed(decimals));
  };
  return { base, decimals, ticks: ticks.map((at) => ({ at, label: text(at) })) };
}

function logTicks([low, high], count) {
  const decades = Math.log10(high / low);
  const within = (x) => x >= low * 0.9999 && x <= high * 1.0001;
  const powers = [];
  for (let i = Math.ceil(Math.log10(low) - 1e-9); i <= Math.floor(Math.log10(high) + 1e-9); i++) powers.push(i);
  if (decades < 1.5) {
    const ticks = [];
    for (let i = Math.floor(Math.log10(low)); i <= Math.ceil(Math.log10(high)); i++) {
      for (const m of [1, 2, 5]) if (within(m * 10 ** i)) ticks.push({ at: m * 10 ** i, label: `${m}×10${raised(i)}` });
    }
    if (low >= 1e-3 && high < 1e6) for (const tick of ticks) tick.label = String(Number(tick.at.toPrecision(1)));
    return ticks.length > 1 ? { base: 0, ticks } : linearTicks([low, high], count);
  }
  const step = Math.max(1, Math.ceil(powers.length / Math.max(count, 2)));
  const plain = powers.every((i) => i >= -3 && i <= 4);
  const kept = powers.filter((i) => i % step === 0);
  return { base: 0, ticks: kept.map((i) => ({ at: 10 ** i, label: plain ? signed(String(10 ** i)) : `10${raised(i)}` })) };
}

const ticksOf = (scale, count) => (scale.kind === "log" ? logTicks(scale.domain, count) : linearTicks(scale.domain, count));

// Widths are measured, since fonts differ; the font is that of `svg text`.
const ruler = document.createElement("canvas").getContext("2d");
ruler.font = '12px system-ui, "Liberation Sans", Arial, sans-serif';
const widthOf = (text) => ruler.measureText(text).width;

/** As much of a text as there is room for. */
function fitted(text, room) {
  let kept = text;
  while (kept.length > 1 && widthOf(kept === text ? text : `${kept}…`) > room) kept = kept.slice(0, -1);
  return kept === text ? text : `${kept}…`;
}

// ---------------------------------------------------------------- a frame with axes

/** Axes in an SVG as wide as its place; returns the SVG, its scales, and layers to draw in. */
function frame({ width, height, x, y, right = 12, label, square = false }) {
  const yTicks = y.ticks ?? ticksOf(scaleOf(y.kind, y.domain, [1, 0]), Math.floor(height / 48)).ticks;
  const left = Math.min(width * 0.35, 34 + Math.max(...yTicks.map((tick) => widthOf(tick.label)), 12));
  let inner = { left, right: width - right, top: 10, bottom: height - 46 };
  if (square) {
    const side = Math.min(inner.right - inner.left, square);
    inner = { ...inner, right: inner.left + side, bottom: inner.top + side };
    height = inner.bottom + 46;
  }
  const across = scaleOf(x.kind, x.flip ? [...x.domain].reverse() : x.domain, [inner.left, inner.right]);
  const up = scaleOf(y.kind, y.domain, [inner.bottom, inner.top]);
  const found = x.ticks ? { base: 0, ticks: x.ticks } : ticksOf(across.kind === "log" ? { kind: "log", domain: [...x.domain] } : across, (inner.right - inner.left) / 74);
  const upwards = y.ticks ? { base: 0, ticks: y.ticks } : ticksOf(up, Math.floor((inner.bottom - inner.top) / 44));
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img", "aria-label": label });
  const back = svg("g"), middle = svg("g"), front = svg("g");
  const clip = `clip-${frame.count = (frame.count ?? 0) + 1}`;
  root.append(
    svg("clipPath", { id: clip }, svg("rect", { x: inner.left - 1, y: inner.top - 1, width: inner.right - inner.left + 2, height: inner.bottom - inner.top + 2 })),
    back,
  );
  const offset = (text, { base, decimals }) => (base ? `${text} − ${signed(base.toFixed(Math.min(decimals, 12)))}` : text);
  let taken = -Infinity;
  const inOrder = [...found.ticks].filter(({ at }) => across.inside(at)).sort((a, b) => across.at(a.at) - across.at(b.at));
  for (const { at, label: text } of inOrder) {
    const px = across.at(at), half = widthOf(text) / 2;
    back.append(svg("line", { class: x.bare ? "axis" : "gridline", x1: px, x2: px, y1: inner.bottom + (x.bare ? 4 : 0), y2: x.bare ? inner.bottom : inner.top }));
    if (px - half < taken + 6 || px + half > width) continue;
    taken = px + half;
    back.append(svg("text", { x: px, y: inner.bottom + 16, "text-anchor": "middle" }, text));
  }
  taken = Infinity;
  for (const { at, label: text } of [...upwards.ticks].filter(({ at: v }) => up.inside(v)).sort((a, b) => up.at(b.at) - up.at(a.at))) {
    const py = up.at(at);
    back.append(svg("line", { class: y.bare ? "axis" : "gridline", y1: py, y2: py, x1: inner.left - (y.bare ? 4 : 0), x2: y.bare ? inner.left : inner.right }));
    if (py > taken - 14) continue;
    taken = py;
    back.append(svg("text", { x: inner.left - 7, y: py + 4, "text-anchor": "end" }, fitted(text, inner.left - 30)));
  }
  back.append(
    svg("path", { class: "axis", d: `M${inner.left},${inner.top}V${inner.bottom}H${inner.right}` }),
    svg("text", { x: (inner.left + inner.right) / 2, y: height - 10, "text-anchor": "middle" }, offset(x.label, found)),
    svg("text", { transform: `translate(13,${(inner.top + inner.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, offset(y.label, upwards)),
  );
  const clipped = svg("g", { "clip-path": `url(#${clip})` }, middle);
  root.append(clipped, svg("g", { "clip-path": `url(#${clip})` }, front));
  return { root, back, middle, front, x: across, y: up, inner, width, height };
}

/** A polyline through those points that are known and can be drawn; gaps stay gaps. */
function path(at, xs, ys) {
  let pen = false, text = "";
  xs.forEach((x, i) => {
    const good = known(x) && known(ys[i]) && (at.x.kind !== "log" || x > 0) && (at.y.kind !== "log" || ys[i] > 0);
    if (good) text += `${pen ? "L" : "M"}${at.x.at(x).toFixed(1)},${at.y.at(ys[i]).toFixed(1)}`;
    pen = good;
  });
  return text;
}

const SHAPES = {
  circle: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
  square: (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  up: (r) => `M0,${-r}L${r},${r}H${-r}z`,
  down: (r) => `M0,${r}L${r},${-r}H${-r}z`,
  diamond: (r) => `M0,${-r * 1.2}L${r * 1.2},0L0,${r * 1.2}L${-r * 1.2},0z`,
  plus: (r) => `M${-r / 3},${-r}h${(2 * r) / 3}v${(2 * r) / 3}h${(2 * r) / 3}v${(2 * r) / 3}h${(-2 * r) / 3}v${(2 * r) / 3}h${(-2 * r) / 3}v${(-2 * r) / 3}h${(-2 * r) / 3}v${(-2 * r) / 3}h${(2 * r) / 3}z`,
  cross: (r) => `M${-r},${-r}L${r},${r}M${-r},${r}L${r},${-r}`,
};
const mark = (shape, px, py, r, attributes) => svg("path", { d: SHAPES[shape](r), transform: `translate(${px},${py})`, ...attributes });

/** A ring around what is selected, told from what lies under it in both themes. */
const ringAt = (px, py, r = 7) => [mark("circle", px, py, r, { class: "halo" }), mark("circle", px, py, r, { class: "ring" })];

function legend(host, entries) {
  host.replaceChildren(...entries.filter(Boolean).map(({ text, line, shape, colour, swatch }) => el("li", {},
    svg("svg", { viewBox: "0 0 26 14", "aria-hidden": "true" },
      line !== undefined ? svg("path", { class: `line ${line}`, d: "M1,7H25", stroke: colour }) : null,
      shape ? mark(shape, 13, 7, shape === "cross" ? 4 : 4.2, shape === "cross" ? { class: "cross" } : shape === "ring" ? {} : { fill: colour }) : null,
      swatch ?? null),
    text)));
}
const ringSwatch = () => mark("circle", 13, 7, 5, { class: "ring" });
const SELECTED = { text: "selected point", get swatch() { return ringSwatch(); } };

// ---------------------------------------------------------------- colours of heat maps

const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const DIVERGING = ["#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7", "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"];

function colourAt(map, share) {
  const place = Math.min(Math.max(share, 0), 1) * (map.length - 1), i = Math.min(Math.floor(place), map.length - 2);
  const [from, to] = [map[i], map[i + 1]].map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return `rgb(${from.map((part, k) => Math.round(part + (to[k] - part) * (place - i))).join(",")})`;
}

/** A colour bar right of a frame: `scale` maps values to heights, `colour` a share of its height to a colour. */
function colourBar(at, scale, map, label) {
  const { inner } = at, left = inner.right + 14, steps = 60, tall = inner.bottom - inner.top;
  const bar = svg("g", { "aria-hidden": "true" });
  for (let i = 0; i < steps; i++) {
    bar.append(svg("rect", { x: left, width: 14, y: inner.bottom - ((i + 1) / steps) * tall, height: tall / steps + 0.6, fill: colourAt(map, (i + 0.5) / steps), "shape-rendering": "crispEdges" }));
  }
  bar.append(svg("rect", { x: left, y: inner.top, width: 14, height: tall, class: "axis" }));
  const { ticks } = ticksOf(scale, Math.max(2, Math.floor(tall / 44)));
  for (const { at: v, label: text } of ticks.filter((tick) => scale.inside(tick.at))) {
    bar.append(svg("line", { class: "axis", x1: left + 14, x2: left + 18, y1: scale.at(v), y2: scale.at(v) }), svg("text", { x: left + 21, y: scale.at(v) + 4 }, text));
  }
  bar.append(svg("text", { transform: `translate(${left + 80},${(inner.top + inner.bottom) / 2}) rotate(90)`, "text-anchor": "middle" }, label));
  return bar;
}
const BAR = 112;

/** A pattern by which what failed is told from every colour. */
function hatch(root, id) {
  root.prepend(svg("defs", {}, svg("pattern", { id, class: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, svg("line", { x1: 0, x2: 0, y1: 0, y2: 6 }))));
  return `url(#${id})`;
}

// ---------------------------------------------------------------- panels

let selected = 0;
const panels = [];

/** A figure that is built for a width and then updated for the selected point. */
function panel(section, id, title, build, { size = "", controls = null } = {}) {
  const plot = el("div", { class: "plot" }), key = el("ul", { class: "legend" }), note = el("p", { class: "note" });
  const figure = el("figure", { id, class: `panel ${size}` }, el("figcaption", { id: `${id}-title` }, title), controls, plot, key, note);
  figure.setAttribute("aria-labelledby", `${id}-title`);
  document.querySelector(`#${section} .panels`).append(figure);
  const one = {
    size,
    build(width = plot.clientWidth) {
      plot.replaceChildren();
      note.textContent = "";
      key.replaceChildren();
      one.update = build({ plot, key, note, width: Math.max(240, Math.floor(width)) }) ?? (() => {});
    },
    refresh() {
      figure.dataset.point = points[selected].index;
      one.update(points[selected], selected);
    },
  };
  panels.push(one);
  return one;
}

/** What only helps on a screen: print leaves it out. */
const hint = (text) => el("span", { class: "control" }, text);
const none = (text) => el("p", { class: "none" }, text);
const whyNot = (point) => (point.state === "failed" ? `This point failed: ${point.reason}` : "This point was not measured yet.");
/** What a panel says of a store that lacks what it shows. */
const unrecorded = () => (data.format === 1 ? "Not recorded: this store has format 1." : "Not recorded at this point.");

function select(i) {
  selected = Math.min(Math.max(i, 0), points.length - 1);
  const slider = document.getElementById("point"), point = points[selected];
  slider.value = selected;
  const text = `${selected + 1} of ${points.length}: ${placeOf(point)}${point.state === "done" ? "" : ` (${point.state === "failed" ? "failed" : "not measured"})`}`;
  slider.setAttribute("aria-valuetext", text);
  const chosen = document.getElementById("chosen");
  chosen.textContent = text;
  chosen.dataset.point = point.index;
  for (const one of panels) one.refresh();
}

/** Where a point lies, in words. */
function placeOf(point) {
  if (!towards) return point.at.map((k, axis) => `${data.axes[axis].name} = ${value(data.axes[axis].values[k])}`).join(", ");
  return `|p − p_c| = ${show(point.distance)}` + (known(point.parameter) ? `, p = ${show(point.parameter, 10)}` : "");
}

/** Select by a click: `find` gives from a place in the SVG the number of the nearest point, or null. */
function clickable(root, find) {
  root.classList.add("clickable");
  root.addEventListener("click", (event) => {
    const box = root.getBoundingClientRect(), [, , w, h] = root.getAttribute("viewBox").split(" ").map(Number);
    const i = find(((event.clientX - box.left) * w) / box.width, ((event.clientY - box.top) * h) / box.height);
    if (i !== null) select(i);
  });
}

function nearest(count, gap) {
  let best = null, least = Infinity;
  for (let i = 0; i < count; i++) {
    const size = gap(i);
    if (size < least) [best, least] = [i, size];
  }
  return best;
}

// ---------------------------------------------------------------- towards a bifurcation

const KINDS = {
  "saddle-node": ["Saddle-node", "square", "var(--red)"],
  hopf: ["Hopf", "circle", "var(--blue)"],
  transcritical: ["Transcritical", "up", "var(--green)"],
  pitchfork: ["Pitchfork", "down", "var(--orange)"],
  flip: ["Flip", "plus", "var(--sky)"],
  "neimark-sacker": ["Neimark-Sacker", "circle", "var(--blue)"],
  "branch-point": ["Branch point", "diamond", "var(--pink)"],
  double: ["Double", "diamond", "var(--pink)"],
  degenerate: ["Degenerate", "diamond", "var(--pink)"],
  unknown: ["Unresolved", "cross", "var(--hatch)"],
  "cycle-fold": ["Fold of cycles", "square", "var(--sky)"],
  "cycle-branch-point": ["Branch point of cycles", "diamond", "var(--sky)"],
  "period-doubling": ["Period doubling", "plus", "var(--pink)"],
  torus: ["Torus", "circle", "var(--orange)"],
  "saddle-node on a cycle": ["Saddle-node on a cycle", "square", "var(--red)"],
};

function diagram() {
  const { branch } = data;
  const whole = el("input", { type: "checkbox", id: "whole", onchange: () => { one.build(); one.refresh(); } });
  const controls = branch ? el("div", { class: "choices" }, el("label", { class: "check" }, whole, "Whole branch (otherwise the measured window)")) : null;
  const one = panel("overview", "diagram", "Bifurcation diagram", ({ plot, key, note, width }) => {
    if (!branch) { plot.append(none("No branch is recorded in this store.")); return null; }
    const good = points.filter((point) => known(point.parameter) && known(point.height));
    let across = extent(branch.parameter), up = extent([...branch.stable, ...branch.unstable], "linear", 0.08);
    if (!whole.checked) {
      const target = branch.events.filter((event) => event.target);
      across = extent([...good, ...target].map((point) => point.parameter), "linear", 0.1);
      const inside = (p) => p >= across[0] && p <= across[1];
      const heights = branch.parameter.flatMap((p, i) => (inside(p) ? [branch.stable[i], branch.unstable[i]] : []));
      up = extent([...heights, ...[...good, ...target].map((point) => point.height)], "linear", 0.12);
    }
    const at = frame({
      width, height: Math.min(400, Math.max(280, width * 0.36)),
      x: { kind: "linear", domain: across, label: "parameter p (units of p)" },
      y: { kind: "linear", domain: up, label: cycles ? "largest state 0 (units of state)" : branch.scalar ? "state x (units of state)" : "projected state (units of state)" },
      label: `Bifurcation diagram: branches of ${cycles ? "cycles" : "equilibria"} over the parameter, with the measured points`,
    });
    at.middle.append(
      svg("path", { class: "line dashed", stroke: "var(--muted)", d: path(at, branch.parameter, branch.unstable) }),
      svg("path", { class: "line", stroke: "var(--ink)", d: path(at, branch.parameter, branch.stable) }),
    );
    for (const event of branch.events) {
      const [, shape, colour] = KINDS[event.kind] ?? KINDS.unknown;
      const px = at.x.at(event.parameter), py = at.y.at(event.height);
      at.middle.append(mark(shape, px, py, event.target ? 6 : 4.5, shape === "cross" ? { class: "cross" } : { fill: colour, stroke: "var(--panel)" }));
    }
    points.forEach((point) => {
      if (known(point.height) && known(point.parameter)) at.middle.append(mark("circle", at.x.at(point.parameter), at.y.at(point.height), 2.6, { fill: "var(--green)", "data-index": point.index }));
    });
    plot.append(at.root);
    const kinds = [...new Set(branch.events.map((event) => event.kind))];
    const target = branch.events.find((event) => event.target);
    legend(key, [
      { text: "stable", line: "", colour: "var(--ink)" },
      branch.unstable.some(known) ? { text: "unstable", line: "dashed", colour: "var(--muted)" } : null,
      ...kinds.map((kind) => ({ text: (KINDS[kind] ?? KINDS.unknown)[0] + (target?.kind === kind ? " (the larger mark is swept towards)" : ""), shape: (KINDS[kind] ?? KINDS.unknown)[1], colour: (KINDS[kind] ?? KINDS.unknown)[2] })),
      { text: "measured", shape: "circle", colour: "var(--green)" },
      SELECTED,
    ]);
    note.append(
      (cycles ? "The ordinate is the largest value of the first state on each cycle. " : branch.scalar ? "" : "The ordinate is the first principal component of the branch's states, with their linear trend in p removed. ") +
      (cycles ? "" : "Between its steps the branch is drawn by cubic splines. "), hint("Click near a point to select it."));
    const place = (i) => [at.x.at(points[i].parameter ?? NaN), at.y.at(points[i].height ?? NaN)];
    clickable(at.root, (px, py) => nearest(points.length, (i) => {
      const [x, y] = place(i);
      return known(points[i].parameter) && known(points[i].height) ? Math.hypot(x - px, y - py) : Infinity;
    }));
    return (point, i) => at.front.replaceChildren(...(known(point.parameter) && known(point.height) ? ringAt(...place(i), 10) : []));
  }, { size: "wide", controls });
}

/** Curves over the distance from the bifurcation; `curves` have text, values(point), colour, line, shape. */
function overDistance(id, title, label, curves, text = "") {
  panel("overview", id, title, ({ plot, key, note, width }) => {
    const values = curves.map((curve) => points.map((point) => (point.state === "done" ? curve.values(point) : null)));
    const drawn = values.flat().filter((x) => known(x) && x > 0);
    const zeros = values.flat().filter((x) => x === 0).length;
    if (!drawn.length) {
      const measured = points.some((point) => point.state === "done");
      plot.append(none(zeros ? "Exactly zero at every point where it is known: no log scale shows that." : measured ? "Not known at any point." : "No point was measured."));
      return null;
    }
    const at = frame({
      width, height: Math.min(290, Math.max(230, width * 0.78)),
      x: { kind: "log", domain: extent(points.map((point) => point.distance), "log", 0.03), label: "distance |p − p_c| (units of p)", flip: true },
      y: { kind: "log", domain: extent(drawn, "log", 0.06), label },
      label: `${title}, over the distance from the bifurcation`,
    });
    const xs = points.map((point) => point.distance);
    curves.forEach((curve, k) => {
      at.middle.append(svg("path", { class: `line ${curve.line ?? ""}`, stroke: curve.colour, d: path(at, xs, values[k]) }));
      xs.forEach((x, i) => {
        if (known(values[k][i]) && values[k][i] > 0) at.middle.append(mark(curve.shape, at.x.at(x), at.y.at(values[k][i]), 2.6, { fill: curve.colour }));
      });
    });
    const failed = points.filter((point) => point.state === "failed");
    for (const point of failed) at.middle.append(mark("cross", at.x.at(point.distance), at.inner.bottom - 7, 4, { class: "cross" }));
    plot.append(at.root);
    legend(key, [
      ...curves.map((curve) => ({ text: curve.text, line: curve.line ?? "", shape: curve.shape, colour: curve.colour })),
      failed.length ? { text: "failed", shape: "cross" } : null, SELECTED,
    ]);
    note.textContent = `${text}${zeros ? ` ${zeros} values are exactly zero, and not shown.` : ""} The bifurcation lies to the right.`.trim();
    clickable(at.root, (px) => nearest(points.length, (i) => Math.abs(at.x.at(points[i].distance) - px)));
    return (point, i) => {
      const px = at.x.at(point.distance);
      const rings = values.map((row) => row[i]).filter((y) => known(y) && y > 0).flatMap((y) => ringAt(px, at.y.at(y)));
      at.front.replaceChildren(svg("line", { class: "guide", x1: px, x2: px, y1: at.inner.top, y2: at.inner.bottom }), ...rings);
    };
  });
}

function towardsPanels() {
  diagram();
  const { slope } = data;
  overDistance("steady", "Steady-state NTK", "largest eigenvalue (state²)",
    [{ text: "largest eigenvalue of the steady-state NTK", values: (point) => point.values.steady, colour: "var(--red)", shape: "circle" }],
    slope && known(slope.measured) ? `Slope ${show(slope.measured, 4)} over the last ${show(slope.decades, 2)} decades of the distance; predicted near the point: ${show(slope.predicted)}${slope.says ? `: ${slope.says}` : ""}.` : "");
  overDistance("ranks", "Modes of the trajectory NTK", "effective number of modes", [
    { text: "effective rank", values: (point) => point.values.effective_rank, colour: "var(--blue)", shape: "circle" },
    { text: "participation ratio", values: (point) => point.values.participation_ratio, colour: "var(--green)", line: "dashed", shape: "square" },
  ]);
  overDistance("law", "Trajectory NTK and the master law", "largest eigenvalue (state² time)", [
    { text: "measured, the whole kernel", values: (point) => point.channel?.top_eigenvalue, colour: "var(--ink)", shape: "circle" },
    { text: "critical mode alone, by the master law", values: (point) => point.channel?.predicted_top_eigenvalue, colour: "var(--red)", line: "dashed", shape: "diamond" },
  ], "Gaps: no method predicts the critical part there.");
  if (data.quantities.some((one) => one.name === "border_margin")) {
    overDistance("border", "Borders of units", "least change of θ (parameter)", [
      { text: "to the nearest border", values: (point) => point.values.border_margin, colour: "var(--blue)", shape: "circle" },
      { text: "to the nearest nonsmooth fold", values: (point) => point.values.fold_margin, colour: "var(--red)", line: "dashed", shape: "diamond" },
    ], "A unit switches at its border. At a nonsmooth fold the fixed point vanishes.");
  }
  const looks = [["var(--blue)", "circle", ""], ["var(--green)", "square", "dashed"], ["var(--red)", "diamond", ""], ["var(--ink)", "up", "dashed"]];
  for (const { name, title, label, lines } of data.panels) {
    overDistance(`own-${name}`, title, label, lines.map((key, i) => {
      const [colour, shape, line] = looks[i % looks.length], { label: text } = data.quantities.find((one) => one.name === key);
      return { text, values: (point) => point.values[key], colour, shape, line };
    }));
  }
}

// ---------------------------------------------------------------- towards a bifurcation of limit cycles

/** The slope of a variable over the last decades, in words. */
function slopeOf(name, title) {
  const [measured, predicted] = data.slopes?.lines[name] ?? [null, null];
  if (!known(measured)) return "";
  return `Slope of the ${title} ${show(measured, 4)} over the last ${show(data.slopes.decades, 2)} decades of the distance` + (known(predicted) ? `; predicted near the point: ${show(predicted)}.` : ".");
}

function cyclePanels() {
  diagram();
  const driven = points.some((point) => point.values?.drive_frequency > 0);
  const channel = points.some((point) => known(point.values?.driven_response));
  overDistance("shape", "Shape kernel and critical Floquet mode", "largest eigenvalue (state²)", [
    { text: "shape kernel", values: (point) => point.values.shape_top, colour: "var(--blue)", shape: "circle" },
    ...(driven ? [{ text: "response at the critical frequency", values: (point) => point.values.driven_response, colour: "var(--red)", shape: "square" }] : []),
    ...(channel ? [{ text: "critical mode alone, by its law", values: (point) => point.values.predicted_response, colour: "var(--orange)", line: "dashed", shape: "diamond" }] : []),
  ], `${channel ? slopeOf("driven_response", driven ? "response" : "shape kernel") : slopeOf("shape_eigenvalues", "shape kernel")} ${data.slopes ? `${data.slopes.says}.` : ""}`.trim());
  overDistance("phase", "Phase channel", "|P_θ/P|² <|f|²> (state²/time²)", [
    { text: "the long trajectory's largest NTK eigenvalue over T³/3", values: (point) => point.values.phase_channel, colour: "var(--blue)", shape: "circle" },
  ], slopeOf("phase_channel", "phase channel"));
  overDistance("decay", "Decay of the critical Floquet mode", "−Re λ (1/time)", [
    { text: "critical Floquet exponent", values: (point) => point.decay, colour: "var(--red)", shape: "circle" },
  ], slopeOf("critical_exponent", "exponent"));
  overDistance("period", "Period", "period P (time)", [
    { text: "period of the cycle", values: (point) => point.values.period, colour: "var(--ink)", shape: "circle" },
  ], slopeOf("period", "period"));
  overDistance("ranks", "Modes of the shape kernel", "effective number of modes", [
    { text: "effective rank", values: (point) => point.values.shape_effective_rank, colour: "var(--blue)", shape: "circle" },
    { text: "participation ratio", values: (point) => point.values.shape_participation_ratio, colour: "var(--green)", line: "dashed", shape: "square" },
  ]);
}

function multipliers() {
  panel("detail", "multipliers", "Floquet multipliers of the selected cycle", ({ plot, note }) => (point) => {
    plot.replaceChildren();
    note.textContent = "";
    if (point.state !== "done") { plot.append(none(whyNot(point))); return; }
    const [re, im] = point.multipliers;
    plot.append(table(null, ["Multiplier", "Size"], re.map((x, i) => el("tr", {},
      el("td", { class: "number" }, complex([x, im[i]])), el("td", { class: "number" }, show(Math.hypot(x, im[i])))))));
    note.textContent = "The trivial multiplier, 1 along the cycle, is taken out. The cycle is stable if all others are smaller than 1.";
  });
}

// ---------------------------------------------------------------- grids

const PLACE = { mapped: data.quantities.filter((one) => one.mapped), quantity: data.quantities[0].name, x: 0, y: 1, fixed: [] };

function choice(id, label, options, chosen, act) {
  const list = el("select", { id, onchange: () => act(list.value) }, options.map(([key, text]) => el("option", { value: key }, text)));
  list.value = chosen;
  return { list, label: el("label", { for: id }, label, list) };
}

/** Cell borders or places along an axis: numbers at their values, in ascending order; names evenly. */
function axisOf(k) {
  const { name, values } = data.axes[k];
  const numeric = values.every((v) => typeof v === "number");
  const order = values.map((_, i) => i);
  if (numeric) order.sort((a, b) => values[a] - values[b]);
  const kind = numeric && wantsLog(values) ? "log" : "linear";
  const places = order.map((i, at) => (numeric ? values[i] : at));
  const f = kind === "log" ? Math.log10 : (v) => v, g = kind === "log" ? (v) => 10 ** v : (v) => v;
  const middles = places.map(f), edges = [];
  for (let i = 1; i < middles.length; i++) edges.push((middles[i - 1] + middles[i]) / 2);
  const [first, last] = middles.length > 1 ? [edges[0] - middles[0], middles.at(-1) - edges.at(-1)] : [0.5, 0.5];
  const borders = [middles[0] - first, ...edges, middles.at(-1) + last].map(g);
  // Every value is a tick: labels that would overlap are left out, the ticks stay.
  const ticks = order.map((i, at) => ({ at: places[at], label: shorten(value(values[i])) }));
  return { name, order, places, borders, kind, ticks, domain: [borders[0], borders.at(-1)] };
}
const shorten = (text) => (text.length > 18 ? `${text.slice(0, 17)}…` : text);

/** The points whose values agree with a cell and with what the other axes are set to. */
function cellOf(i, j) {
  return points.map((_, number) => number).filter((number) => points[number].at.every((k, axis) =>
    axis === PLACE.x ? k === i : axis === PLACE.y ? k === j : PLACE.fixed[axis] === "median" || k === Number(PLACE.fixed[axis])));
}

function summary(numbers) {
  const values = numbers.map((number) => points[number].values?.[PLACE.quantity]);
  const good = values.filter(known);
  if (good.length) {
    const middle = median(good), gap = (k) => (known(values[k]) ? Math.abs(values[k] - middle) : Infinity);
    return { value: middle, state: "done", point: numbers[nearest(numbers.length, gap)], known: good.length, of: numbers.length };
  }
  const state = ["failed", "done", "missing"].find((name) => numbers.some((number) => points[number].state === name));
  return { value: null, state, point: numbers.find((number) => points[number].state === state), known: 0, of: numbers.length };
}

function phaseDiagram() {
  const many = data.axes.length > 1;
  PLACE.fixed = data.axes.map(() => "0");
  const rebuild = () => { one.build(); one.refresh(); };
  const axes = data.axes.map((axis, k) => [String(k), axis.name]);
  const quantity = choice("quantity", "Quantity", PLACE.mapped.map((q) => [q.name, named(q.label, q.units)]), PLACE.quantity, (name) => { PLACE.quantity = name; rebuild(); });
  const chooseAxis = (which, other) => (k) => {
    // The two axes trade places rather than be the same.
    if (PLACE[other] === Number(k)) PLACE[other] = PLACE[which];
    PLACE[which] = Number(k);
    across.list.value = PLACE.x;
    up.list.value = PLACE.y;
    offer();
    rebuild();
  };
  const across = choice("axis-x", "Horizontal", axes, PLACE.x, chooseAxis("x", "y"));
  const up = many ? choice("axis-y", "Vertical", axes, PLACE.y, chooseAxis("y", "x")) : null;
  const others = el("div", { class: "choices", id: "others" });
  const fixed = [];
  const offer = () => {
    others.replaceChildren(...data.axes.flatMap((axis, k) => {
      if (!many || k === PLACE.x || k === PLACE.y) return [];
      if (PLACE.fixed[k] !== "median") PLACE.fixed[k] = String(points[selected].at[k]);
      fixed[k] = choice(`fixed-${k}`, axis.name, [["median", "median over all"], ...axis.values.map((v, i) => [String(i), value(v)])], PLACE.fixed[k], (chosen) => {
        PLACE.fixed[k] = chosen;
        // The selected point moves along, so that it stays in the slice that is shown.
        const i = chosen === "median" ? -1 : points.findIndex((point) => point.at.every((at, axis2) => at === (axis2 === k ? Number(chosen) : points[selected].at[axis2])));
        one.build();
        select(i < 0 ? selected : i);
      });
      return [fixed[k].label];
    }));
  };
  const controls = el("div", {}, el("div", { class: "choices" }, quantity.label, many ? [across.label, up.label] : null), others);
  let built = "";
  const one = panel("overview", "phase", many ? "Phase diagram" : "The quantity along the axis", (place) => {
    built = PLACE.fixed.join();
    return many ? heatMap(place) : linePlot(place);
  }, { size: "wide", controls });
  const refresh = one.refresh;
  one.refresh = () => {
    if (many) {
      // Where the point left the slice that is shown, the slice follows.
      data.axes.forEach((_, k) => {
        if (k !== PLACE.x && k !== PLACE.y && PLACE.fixed[k] !== "median") {
          PLACE.fixed[k] = String(points[selected].at[k]);
          if (fixed[k]) fixed[k].list.value = PLACE.fixed[k];
        }
      });
      if (PLACE.fixed.join() !== built) one.build();
    }
    refresh();
  };
  offer();
}

function heatMap({ plot, key, note, width }) {
  const one = data.quantities.find((q) => q.name === PLACE.quantity);
  const [x, y] = [axisOf(PLACE.x), axisOf(PLACE.y)];
  const cells = x.order.map((i) => y.order.map((j) => summary(cellOf(i, j))));
  // One scale for every slice: colours mean the same whichever is shown.
  const all = points.map((point) => point.values?.[one.name]).filter(known);
  const diverging = one.name === "growth", map = diverging ? DIVERGING : VIRIDIS;
  const most = Math.max(...all.map(Math.abs), 0) || 1;
  const kind = !diverging && all.length && wantsLog(all) ? "log" : "linear";
  const domain = diverging ? [-most, most] : all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
  const at = frame({
    width, height: Math.min(460, Math.max(300, width * 0.42)), right: BAR,
    x: { kind: x.kind, domain: x.domain, ticks: x.ticks, label: x.name + (x.kind === "log" ? " (log scale)" : ""), bare: true },
    y: { kind: y.kind, domain: y.domain, ticks: y.ticks, label: y.name + (y.kind === "log" ? " (log scale)" : ""), bare: true },
    label: "Phase diagram",
  });
  const scale = scaleOf(kind, domain, [at.inner.bottom, at.inner.top]);
  const share = (v) => (at.inner.bottom - scale.at(v)) / (at.inner.bottom - at.inner.top);
  const failed = hatch(at.root, "failed-cells");
  const box = (i, j) => {
    const [x0, x1] = [at.x.at(x.borders[i]), at.x.at(x.borders[i + 1])], [y0, y1] = [at.y.at(y.borders[j]), at.y.at(y.borders[j + 1])];
    return { x: x0, y: y1, width: x1 - x0, height: y0 - y1 };
  };
  const words = (i, j) => {
    const cell = cells[i][j], over = cell.of > 1 ? `, median of ${cell.known} of ${cell.of} points` : "";
    const text = known(cell.value) ? `${show(cell.value)}${one.units ? ` ${one.units}` : ""}${over}` : { failed: `failed: ${points[cell.point].reason}`, done: "not known", missing: "not measured" }[cell.state];
    return `${x.name} = ${value(data.axes[PLACE.x].values[x.order[i]])}, ${y.name} = ${value(data.axes[PLACE.y].values[y.order[j]])}: ${text}`;
  };
  const seen = new Set();
  cells.forEach((column, i) => column.forEach((cell, j) => {
    const state = known(cell.value) ? "value" : cell.state;
    seen.add(state);
    const paint = state === "value" ? { fill: colourAt(map, share(cell.value)) } : state === "failed" ? { fill: failed } : { class: "unmeasured" };
    at.middle.append(svg("rect", { ...box(i, j), ...paint, "shape-rendering": "crispEdges", "data-cell": `${x.order[i]},${y.order[j]}`, "data-value": known(cell.value) ? cell.value : null, "data-state": state }, svg("title", {}, words(i, j))));
  }));
  at.back.append(colourBar(at, scale, map, named(one.label, one.units)));
  plot.append(at.root);
  legend(key, [
    seen.has("failed") ? { text: "failed", swatch: svg("rect", { x: 3, y: 1, width: 20, height: 12, fill: failed }) } : null,
    seen.has("done") || seen.has("missing") ? { text: "not known or not measured", swatch: svg("rect", { x: 3, y: 1, width: 20, height: 12, class: "unmeasured" }) } : null,
    { text: "selected point", swatch: svg("rect", { x: 4, y: 2, width: 18, height: 10, class: "ring" }) },
  ]);
  const medians = data.axes.filter((_, k) => PLACE.fixed[k] === "median" && k !== PLACE.x && k !== PLACE.y).map((axis) => axis.name);
  const held = data.axes.flatMap((axis, k) => (k === PLACE.x || k === PLACE.y || PLACE.fixed[k] === "median" ? [] : [`${axis.name} = ${value(axis.values[PLACE.fixed[k]])}`]));
  note.append(
    (held.length ? `At ${held.join(", ")}. ` : "") + (medians.length ? `Median over ${medians.join(", ")}, of the points where it is known. ` : ""),
    hint(`Click a cell, or focus the map and use the arrow keys, to select its point${medians.length ? "; of a median, the point nearest to it" : ""}.`));
  const here = () => {
    const { at: place } = points[selected];
    return [x.order.indexOf(place[PLACE.x]), y.order.indexOf(place[PLACE.y])];
  };
  const pick = (i, j) => {
    if (i >= 0 && j >= 0 && i < x.order.length && j < y.order.length) select(cells[i][j].point);
  };
  const inCell = (axis, scaled, px, ascending) => axis.order.findIndex((_, i) => {
    const ends = [scaled.at(axis.borders[i]), scaled.at(axis.borders[i + 1])];
    return px >= Math.min(...ends) && px <= Math.max(...ends);
  });
  clickable(at.root, (px, py) => {
    const i = inCell(x, at.x, px), j = inCell(y, at.y, py);
    return i < 0 || j < 0 ? null : cells[i][j].point;
  });
  at.root.setAttribute("tabindex", "0");
  at.root.setAttribute("role", "application");
  at.root.setAttribute("aria-roledescription", "phase diagram");
  at.root.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [i, j] = here();
    pick(i + step[0], j + step[1]);
  });
  return () => {
    const [i, j] = here(), size = box(i, j);
    at.front.replaceChildren(svg("rect", { ...size, class: "cell-halo" }), svg("rect", { ...size, class: "cell-ring", id: "selected-cell", "data-cell": `${x.order[i]},${y.order[j]}` }));
    at.root.setAttribute("aria-label", `Phase diagram of ${named(one.label, one.units)} over ${x.name} and ${y.name}; arrow keys select. Selected: ${words(i, j)}`);
  };
}

function linePlot({ plot, key, note, width }) {
  const one = data.quantities.find((q) => q.name === PLACE.quantity), x = axisOf(0);
  const values = x.order.map((i) => points[i].values?.[one.name] ?? null), good = values.filter(known);
  if (!good.length) { plot.append(none("Not known at any point.")); return null; }
  const kind = one.name !== "growth" && wantsLog(good) ? "log" : "linear";
  const at = frame({
    width, height: Math.min(380, Math.max(280, width * 0.34)),
    x: { kind: x.kind, domain: x.domain, ticks: x.ticks, label: x.name + (x.kind === "log" ? " (log scale)" : "") },
    y: { kind, domain: extent(one.name === "growth" ? [...good, 0] : good, kind), label: named(one.label, one.units) },
    label: `${one.label} over ${x.name}`,
  });
  const numeric = data.axes[0].values.every((v) => typeof v === "number");
  if (one.name === "growth") at.middle.append(svg("path", { class: "border", d: `M${at.inner.left},${at.y.at(0)}H${at.inner.right}` }));
  if (numeric) at.middle.append(svg("path", { class: "line", stroke: "var(--blue)", d: path(at, x.places, values) }));
  let failed = 0;
  x.order.forEach((i, k) => {
    if (known(values[k])) at.middle.append(mark("circle", at.x.at(x.places[k]), at.y.at(values[k]), 3.2, { fill: "var(--blue)", "data-cell": i }));
    else if (points[i].state === "failed" && ++failed) at.middle.append(mark("cross", at.x.at(x.places[k]), at.inner.bottom - 7, 4, { class: "cross" }));
  });
  plot.append(at.root);
  legend(key, [{ text: one.label, shape: "circle", line: numeric ? "" : undefined, colour: "var(--blue)" }, failed ? { text: "failed", shape: "cross" } : null, SELECTED]);
  note.append(hint("Click near a point to select it."));
  clickable(at.root, (px) => x.order[nearest(x.order.length, (k) => Math.abs(at.x.at(x.places[k]) - px))]);
  return (point, i) => {
    const k = x.order.indexOf(i), px = at.x.at(x.places[k]);
    at.front.replaceChildren(svg("line", { class: "guide", x1: px, x2: px, y1: at.inner.top, y2: at.inner.bottom }), ...(known(values[k]) ? ringAt(px, at.y.at(values[k])) : []));
  };
}

// ---------------------------------------------------------------- the selected point

const spectrumOf = (point) => (point.state === "done" ? point : null);

function eigenvalues() {
  const map = data.dt !== null;
  panel("detail", "eigenvalues", map ? "Multipliers in the complex plane" : "Jacobian eigenvalues in the complex plane", ({ plot, key, note, width }) => {
    const done = points.filter((point) => point.state === "done");
    if (!done.length) { plot.append(none("No point was measured.")); return null; }
    const [re, im] = [0, 1].map((part) => done.flatMap((point) => point.eigenvalues[part]));
    let [across, up] = [extent([...re, 0], "linear", 0.06), extent([...im, 0], "linear", 0.08)];
    if (map) {
      const most = Math.max(1.1, ...re.map(Math.abs), ...im.map(Math.abs)) * 1.05;
      across = up = [-most, most];
    } else if (im.every((v) => v === 0)) up = [-1, 1];
    const units = map ? ["Re m", "Im m"] : ["Re λ (1/time)", "Im λ (rad/time)"];
    const at = frame({
      width, height: Math.min(310, width * 0.85), square: map ? 330 : false, label: units.join(", "),
      x: { kind: "linear", domain: across, label: units[0] }, y: { kind: "linear", domain: up, label: units[1] },
    });
    const place = (v) => at.x.at(v).toFixed(1);
    const dust = re.map((v, i) => `M${place(v)},${at.y.at(im[i]).toFixed(1)}h0`);
    at.middle.append(svg("path", { class: "dust", "stroke-width": done.length * 4 > 400 ? 2 : 3, d: [...new Set(dust)].join("") }));
    if (map) {
      const r = at.x.at(1) - at.x.at(0);
      at.middle.append(svg("circle", { class: "border", cx: at.x.at(0), cy: at.y.at(0), r }));
    } else at.middle.append(svg("line", { class: "border", x1: at.x.at(0), x2: at.x.at(0), y1: at.inner.top, y2: at.inner.bottom }));
    plot.append(at.root);
    legend(key, [
      { text: "selected point", shape: "circle", colour: "var(--blue)" },
      { text: map ? "largest" : "rightmost", swatch: mark("circle", 13, 7, 5, { class: "line", stroke: "var(--red)" }) },
      { text: "other points", shape: "circle", colour: "var(--faint)" },
      { text: map ? "unit circle" : "imaginary axis", swatch: svg("path", { class: "border", d: "M1,7H25" }) },
    ]);
    const cut = data.modes.steady.length < data.sizes.steady ? `${data.modes.steady.length} of ${data.sizes.steady} are drawn: the ${map ? "largest" : "rightmost"}, and fewer and fewer of the others. ` : "";
    return (point) => {
      at.front.replaceChildren();
      note.textContent = cut + (point.state === "done" ? `${map ? "Largest" : "Rightmost"}: ${complex(point.rightmost)}${map ? "" : " 1/time"}.` : whyNot(point));
      at.root.setAttribute("aria-label", note.textContent);
      if (point.state !== "done") return;
      const [xs, ys] = point.eigenvalues;
      xs.forEach((x, i) => at.front.append(mark("circle", at.x.at(x), at.y.at(ys[i]), 3, { fill: "var(--blue)" })));
      const [x, y] = point.rightmost;
      if (known(x) && known(y)) for (const v of y === 0 ? [0] : [y, -y]) at.front.append(mark("circle", at.x.at(x), at.y.at(v), 6, { class: "line", stroke: "var(--red)" }));
    };
  });
}

function spectrum() {
  const kinds = [
    { name: "ntk", text: "trajectory NTK (state² time)", colour: "var(--blue)", shape: "circle" },
    { name: "steady", text: "steady-state NTK (state²)", colour: "var(--red)", shape: "square" },
  ];
  panel("detail", "spectrum", "NTK spectrum", ({ plot, key, note, width }) => {
    const done = points.filter((point) => point.state === "done");
    const all = done.flatMap((point) => kinds.flatMap(({ name }) => point[name])).filter((x) => known(x) && x > 0);
    if (!all.length) { plot.append(none("No point was measured.")); return null; }
    let most = 0;
    for (const x of all) most = Math.max(most, x);
    // Far below, there is rounding error only: at least (N eps)^2 relative to the largest.
    const floor = most * (Math.max(data.sizes.ntk, 16) * 2.3e-16) ** 2;
    const at = frame({
      width, height: Math.min(310, width * 0.85), label: "NTK spectrum",
      x: { kind: "log", domain: [0.9, Math.max(data.sizes.ntk, data.sizes.steady, 2) * 1.15], label: "mode, largest first (log scale)" },
      y: { kind: "log", domain: extent(all.filter((x) => x >= floor), "log", 0.04), label: "eigenvalue (units: see legend)" },
    });
    plot.append(at.root);
    legend(key, kinds.map((one) => ({ ...one, line: "" })));
    const cut = data.modes.ntk.length < data.sizes.ntk ? `${data.modes.ntk.length} of ${data.sizes.ntk} modes of the trajectory NTK are drawn. ` : "";
    return (point) => {
      at.front.replaceChildren();
      if (point.state !== "done") { note.textContent = whyNot(point); return; }
      let lacking = 0;
      for (const one of kinds) {
        const modes = data.modes[one.name], values = point[one.name];
        at.front.append(svg("path", { class: "line", stroke: one.colour, "stroke-width": 1, d: path(at, modes.slice(0, values.length), values) }));
        values.forEach((v, i) => {
          if (known(v) && v > 0) at.front.append(mark(one.shape, at.x.at(modes[i]), at.y.at(v), 2.4, { fill: one.colour }));
          else lacking += v === 0;
        });
      }
      note.textContent = `${cut}The scale is the same for every point; what lies below (N ε)² of the largest is rounding error and cut off.${lacking ? ` ${lacking} of those that would be drawn are exactly zero, and not shown.` : ""}`;
      at.root.setAttribute("aria-label", `NTK spectrum: largest of the trajectory NTK ${show(point.values.top)}, of the steady-state NTK ${show(point.values.steady)}`);
    };
  });
}

function kernel() {
  // Whether any kernel takes negative values decides the colours of all of them.
  for (const point of points) if (point.kernel) point.kernel.shades = Int8Array.from(atob(point.kernel.upper), (byte) => byte.charCodeAt(0));
  const negative = points.some((point) => point.kernel?.shades.some((v) => v < 0));
  panel("detail", "kernel", "Trajectory NTK over time, K(t, t′)", ({ plot, note, width }) => (point) => {
    plot.replaceChildren();
    note.textContent = "";
    if (point.state !== "done") { plot.append(none(whyNot(point))); return; }
    if (!point.kernel || !data.times) { plot.append(none(unrecorded())); return; }
    const ts = data.times, n = ts.length;
    const borders = n > 1 ? [ts[0] - (ts[1] - ts[0]) / 2, ...ts.slice(1).map((t, i) => (t + ts[i]) / 2), ts[n - 1] + (ts[n - 1] - ts[n - 2]) / 2] : [ts[0] - 0.5, ts[0] + 0.5];
    const at = frame({
      width, height: 330, square: 300, right: BAR, label: `Kernel over time: largest |K| ${show(point.kernel.peak)} state²`,
      x: { kind: "linear", domain: [borders[0], borders[n]], label: "time t′ (units of time)", bare: true },
      y: { kind: "linear", domain: [borders[0], borders[n]], label: "time t (units of time)", bare: true },
    });
    const map = negative ? DIVERGING : VIRIDIS, { peak, shades } = point.kernel;
    const { left, top, right, bottom } = at.inner, fine = 2;
    const canvas = el("canvas", { width: Math.round((right - left) * fine), height: Math.round((bottom - top) * fine) });
    const paint = canvas.getContext("2d"), pixel = (v, low) => Math.round((v - low) * fine);
    const columns = borders.map((t) => pixel(at.x.at(t), left)), rows = borders.map((t) => pixel(at.y.at(t), top));
    let k = 0;
    for (let i = 0; i < n; i++) {
      for (let j = i; j < n; j++) {
        const share = shades[k++] / 127;
        paint.fillStyle = colourAt(map, negative ? (share + 1) / 2 : share);
        for (const [r, c] of [[i, j], [j, i]]) paint.fillRect(columns[c], rows[r + 1], columns[c + 1] - columns[c], rows[r] - rows[r + 1]);
      }
    }
    at.middle.append(svg("image", { href: canvas.toDataURL(), x: left, y: top, width: right - left, height: bottom - top, preserveAspectRatio: "none" }));
    at.back.append(colourBar(at, scaleOf("linear", [negative ? -(peak || 1) : 0, peak || 1], [at.inner.bottom, at.inner.top]), map, "K(t, t′) (state²)"));
    plot.append(at.root);
    note.textContent = `Summed over inputs and coordinates, without quadrature weights; ${n} save times. Largest |K|: ${show(peak)} state². The scale is this point's own.`;
  });
}

function table(caption, heads, rows) {
  return el("div", { class: "scroll" }, el("table", {}, caption ? el("caption", {}, caption) : null,
    heads ? el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))) : null, el("tbody", {}, rows)));
}

/** A row of a table: a label, a number with the data attributes that tell it exactly, and its units. */
function row(name, label, x, units, text = null) {
  const lacking = typeof x === "number" || x === null || x === undefined ? !known(x) : false;
  return el("tr", {}, el("th", { scope: "row" }, label),
    el("td", { class: lacking && !text ? "number unknown" : "number", "data-name": name, "data-value": known(x) ? x : null }, text ?? show(x, 6)),
    el("td", { class: "units" }, known(x) || text ? units || "" : ""));
}

function channel() {
  panel("detail", "channel", "Critical mode and its channel", ({ plot, key, note, width }) => (point) => {
    plot.replaceChildren();
    key.replaceChildren();
    note.textContent = "";
    if (point.state !== "done") { plot.append(none(whyNot(point))); return; }
    const held = point.channel;
    if (!held) { plot.append(none("Not known: no critical mode was told apart at this point.")); return; }
    if (held.right.length) {
      const many = held.right.length < held.n_units;
      const most = Math.max(...held.right) || 1;
      const units = many ? held.right.map((_, i) => i) : held.units;
      const sizes = many ? [...held.right].sort((a, b) => b - a) : held.right;
      const ticks = linearTicks([0.5, units.length + 0.5], Math.min(units.length, width / 60)).ticks.filter(({ at }) => Number.isInteger(at) && at >= 1);
      const at = frame({
        width, height: 190, label: `|rᵢ| of the critical right eigenvector per unit, largest ${show(most)}`,
        x: { kind: "linear", domain: [0.3, units.length + 0.7], label: many ? `unit by rank (${units.length} of ${held.n_units})` : "unit i", bare: true, ticks: units.length === 1 ? [{ at: 1, label: "1" }] : ticks },
        y: { kind: "linear", domain: [0, most * 1.08], label: "|rᵢ|" },
      });
      const wide = Math.max(1, ((at.inner.right - at.inner.left) / (units.length + 0.4)) * 0.72);
      const thin = Math.min(wide, 40);
      sizes.forEach((size, i) => at.middle.append(svg("rect", { x: at.x.at(i + 1) - thin / 2, width: thin, y: at.y.at(size), height: at.y.at(0) - at.y.at(size), fill: "var(--blue)" }, svg("title", {}, `unit ${many ? `of rank ${i + 1}` : i + 1}: ${show(size, 4)}`))));
      plot.append(at.root);
    } else plot.append(none(`|rᵢ| per unit: ${unrecorded().toLowerCase()}`));
    const map = data.dt !== null;
    const rows = [
      row("channel_kind", "Kind", held.kind, "", held.kind === "pair" ? "complex pair" : "real eigenvalue"),
      row("channel_critical", map ? "Critical multiplier" : "Critical eigenvalue", held.critical[0], map ? "" : "1/time", complex(held.critical)),
      ...Object.entries(data.channel).map(([name, [label, units]]) => row(`channel_${name}`, label, held[name], units)),
      row("channel_method", "Method of the prediction", held.method, "", held.method || "not known"),
    ];
    const half = Math.ceil(rows.length / 2);
    plot.append(
      el("p", { class: "note" }, "Of the states' trajectory NTK; r and l are the right and left critical eigenvectors, |r| = 1."),
      el("div", { class: "tables" }, [rows.slice(0, half), rows.slice(half)].map((part) => table(null, null, part))),
    );
    note.textContent = held.reason ? `Why this method: ${held.reason.replace(/\.?$/, ".")}` : "";
  }, { size: "double" });
}

function numbers() {
  panel("detail", "numbers", "Numbers of the selected point", ({ plot, note }) => (point) => {
    const rows = towards
      ? [row("distance", "Distance |p − p_c|", point.distance, "units of p"), row("parameter", "Parameter p", point.parameter, "units of p", known(point.parameter) ? show(point.parameter, 12) : null)]
      : data.axes.map((axis, k) => row(`axis_${axis.name}`, axis.name, axis.values[point.at[k]], "", value(axis.values[point.at[k]])));
    if (point.state === "done") {
      rows.push(...data.quantities.map(({ name, label, units }) => {
        const x = point.values[name], bound = name === "trajectory_condition_number" && point.bound && known(x);
        return row(name, bound ? `${label} (lower bound)` : label, x, units, bound ? `≥ ${show(x, 6)}` : null);
      }));
    }
    plot.replaceChildren(table(`Point number ${point.index} of the plan: ${point.state === "done" ? "measured" : point.state === "failed" ? "failed" : "not measured"}.`, ["Quantity", "Value", "Units"], rows));
    note.textContent = point.state === "done" ? "" : whyNot(point);
  });
  if (!data.blocks.length) return;
  panel("detail", "blocks", "Blocks of parameters", ({ plot, note }) => (point) => {
    plot.replaceChildren();
    note.textContent = "";
    if (point.state !== "done") { plot.append(none(whyNot(point))); return; }
    if (!point.blocks) { plot.append(none(unrecorded())); return; }
    const heads = ["Block", ...data.block_heads];
    plot.append(table("Each block's part of the trajectory NTK.", heads, data.blocks.map((name, i) => el("tr", {}, el("th", { scope: "row" }, name),
      point.blocks[i].map((x, k) => el("td", { class: "number" }, k === 4 && x === 0 ? "not driven" : show(x)))))));
    note.textContent = "Predicted: the participation ratio near the bifurcation, from the drive of the critical mode.";
  }, { size: "wide" });
}

// ---------------------------------------------------------------- failures, and what was run

function failures() {
  const section = document.getElementById("failures"), failed = points.map((point, i) => [point, i]).filter(([point]) => point.state === "failed");
  if (!failed.length) { section.append(el("p", {}, "No point failed.")); return; }
  const show1 = (i) => () => { select(i); document.getElementById("detail").scrollIntoView({ block: "start" }); };
  section.append(table(`${failed.length} of ${points.length} points failed. They are shown as gaps, crosses or hatched cells, never as a value.`, ["Point", "Where", "Reason"],
    failed.map(([point, i]) => el("tr", {},
      el("td", {}, el("button", { type: "button", class: "link", "aria-label": `Select point ${point.index}`, onclick: show1(i) }, String(point.index))),
      el("td", {}, placeOf(point)), el("td", {}, point.reason)))));
}

function run() {
  const pair = ([name, text], code) => [el("dt", {}, name), el("dd", {}, code ? el("code", {}, text) : text)];
  document.getElementById("run").append(
    el("dl", {}, data.what.flatMap((one) => pair(one, false))),
    el("h2", {}, "To run it again"),
    el("p", {}, "From the folder that holds the store; points that are measured already are kept:"),
    el("dl", {}, data.rerun.flatMap((one) => pair(one, true))),
  );
}

// ---------------------------------------------------------------- the page

function themes() {
  const button = document.getElementById("theme"), root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => { button.textContent = dark() ? "Light theme" : "Dark theme"; };
  // Kept with this page's entry in the history: a reload finds it, another page does not.
  if (["dark", "light"].includes(history.state?.theme)) root.dataset.theme = history.state.theme;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    history.replaceState({ theme: root.dataset.theme }, "");
    name();
  });
  system.addEventListener("change", name);
  name();
}

function start() {
  const count = (state) => points.filter((point) => point.state === state).length;
  const [failed, missing] = [count("failed"), count("missing")];
  document.getElementById("summary").textContent = `${count("done")} of ${points.length} points measured` +
    (failed ? `, ${failed} failed` : "") + (missing ? `, ${missing} not measured yet` : "") + `; plan ${data.hash}.`;
  const slider = document.getElementById("point");
  slider.max = points.length - 1;
  slider.addEventListener("input", () => select(Number(slider.value)));
  // Towards a bifurcation the nearest point tells most; of a grid, the first.
  const done = points.map((point, i) => (point.state === "done" ? i : -1)).filter((i) => i >= 0);
  selected = (towards ? done.at(-1) : done[0]) ?? 0;
  themes();
  if (cycles) cyclePanels();
  else if (towards) towardsPanels();
  else phaseDiagram();
  if (cycles) multipliers();
  else for (const draw of [eigenvalues, spectrum, kernel, channel]) draw();
  numbers();
  failures();
  run();
  const redraw = (widthOf) => {
    for (const one of panels) one.build(widthOf(one));
    select(selected);
  };
  let width = 0;
  const draw = () => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    redraw(() => undefined);
  };
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(document.body);
  // On paper panels have widths of their own, whatever the window has.
  addEventListener("beforeprint", () => redraw((one) => (one.size ? 660 : 310)));
  addEventListener("afterprint", () => redraw(() => undefined));
  draw();
  document.documentElement.dataset.ready = "yes";
}

start();
})();
