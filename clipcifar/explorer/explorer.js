// Forms without a reload, news of the results, and the map. Without it forms and galleries work as pages.
"use strict";
const status = document.getElementById("status");
let asking = 0;

async function replaceMain(response) {
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const old = document.querySelector("main"), fresh = page.querySelector("main");
  if (!fresh) throw new Error("no page of the explorer");
  if (page.querySelector(".refused") && fresh.textContent === old.textContent) {
    old.dataset.number = fresh.dataset.number;
    return;
  }
  old.replaceWith(fresh);
  for (const name of ["header h1", "#about"]) {
    document.querySelector(name).textContent = page.querySelector(name).textContent;
  }
  document.title = page.title;
  draw();
}

async function ask(form) {
  const fields = new URLSearchParams(new FormData(form));
  const post = form.method === "post";
  const address = post ? form.action : `${form.action}?${fields}`;
  const focused = document.activeElement && document.activeElement.name;
  const own = focused ? `[name="${focused}"]` : `form[action="${form.getAttribute("action")}"] button`;
  const buttons = form.querySelectorAll("button");
  buttons.forEach((button) => { button.disabled = true; });
  asking += 1;
  try {
    const response = await fetch(address, post ? { method: "POST", body: fields } : {});
    await replaceMain(response);
    if (!post) history.pushState(null, "", response.url);
    const again = document.querySelector(own); // where a keyboard was, it goes on
    if (again) { again.focus(); if (again.select) again.select(); }
    status.textContent = "";
  } catch (error) {
    status.textContent = "The explorer does not answer: it has ended, or is busy.";
  } finally {
    asking -= 1;
    buttons.forEach((button) => { button.disabled = false; });
  }
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-live]")) return;
  event.preventDefault();
  ask(event.target);
});
addEventListener("popstate", () => location.reload());

let next = setTimeout(look, 300);
async function look() {
  clearTimeout(next);
  next = 0;
  try {
    const state = await (await fetch("/state")).json();
    const shown = document.querySelector("main").dataset, tried = shown.step && state.step !== Number(shown.step);
    const changed = state.changed || state.number !== Number(shown.number);
    const isLeftAlone = () => !asking && !document.querySelector("main form ~ .refused")
      && [...document.querySelectorAll("input")].every((input) => input.value === input.defaultValue);
    if ((changed || tried) && isLeftAlone()) {
      const response = await fetch(location.href);
      if (isLeftAlone()) await replaceMain(response);
      const said = document.querySelector("main .said, main .refused");
      status.textContent = changed && !said ? "Results changed and were read again." : "";
    } else if (changed) {
      status.textContent = "Results changed; they are read again with your next step.";
    } else if (tried && !asking) {
      status.textContent = "Another page has tried or undone a prompt; your next step shows it.";
    } else {
      status.textContent = state.doing ? `${state.doing} …` : "";
    }
  } catch (error) {
    status.textContent = "The explorer does not answer: it has ended, or is busy.";
  }
  next = next || setTimeout(look, asking ? 300 : 3000);
}
document.addEventListener("submit", () => {
  clearTimeout(next);
  next = setTimeout(look, 300);
});

// The map. Points lie in the plane of the two components; the view is a centre and pixels per unit.
function rgb(colour) {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const [r, g, b] = context.getImageData(0, 0, 1, 1).data;
  return (255 << 24) | (b << 16) | (g << 8) | r;
}
const named = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

let gone = new AbortController(); // tells what a map has listened to that it is replaced
async function draw() {
  gone.abort();
  gone = new AbortController();
  const { signal } = gone;
  const canvas = document.getElementById("map");
  if (!canvas) return;
  const [train, test] = [Number(canvas.dataset.train), Number(canvas.dataset.test)];
  const number = train + test;
  const [points, marks] = await Promise.all(
    ["/points", "/colours"].map(async (path) => (await fetch(path)).arrayBuffer()));
  if (points.byteLength !== 10 * number || marks.byteLength !== number) return; // of other results, or none
  const xs = new Float32Array(points, 0, number), ys = new Float32Array(points, 4 * number, number);
  const labels = new Uint16Array(points, 8 * number, number), right = new Uint8Array(marks);
  const form = document.getElementById("map-form"), context = canvas.getContext("2d");
  const names = [...form.elements.label.options].slice(1).map((option) => option.textContent);
  const turn = names.length <= 12 ? 360 / names.length : 137.508; // of many, the golden angle keeps neighbours apart
  const classes = names.map((_, i) => `hsl(${(i * turn) % 360} 70% ${42 + 18 * (i % 2)}%)`);
  let home, view, image, pixels, outline = [], colours = new Uint32Array(number);
  let drawn = [], plain = 0; // rows in their order, those after the plain ones larger
  form.hidden = false; // without this script it would choose nothing

  function choose() {
    const by = form.elements.colour.value, only = form.elements.only.value, label = form.elements.label.value;
    const [good, bad, won, faint] = ["--series-3", "--series-2", "--series-1", "--muted"].map(named);
    const states = by === "class" ? classes : [faint, good, bad, won];
    const legend = by === "class" ? names.slice(0, 20) : by === "right"
      ? ["", "active set right", "active set wrong"]
      : ["both wrong, or not tried", "both right", "only the active set right", "only the tried prompt right"];
    const palette = states.map(rgb), rest = [], flipped = [];
    for (let i = 0; i < number; i += 1) {
      const r = right[i];
      const state = by === "class" ? labels[i] : by === "right" ? (r & 1 ? 1 : 2)
        : !(r & 4) || !(r & 3) ? 0 : (r & 3) === 3 ? 1 : r & 1 ? 2 : 3;
      colours[i] = palette[state];
      const isKept = (only === "" || (only === "train") === i < train) && (label === "" || labels[i] === Number(label));
      if (isKept) (by === "sets" && state > 1 ? flipped : rest).push(i);
    }
    drawn = rest.concat(flipped);
    plain = rest.length;
    const list = document.getElementById("legend");
    list.replaceChildren(...legend.flatMap((text, i) => {
      if (!text) return [];
      const item = document.createElement("li"), dot = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      dot.setAttribute("viewBox", "0 0 2 2");
      const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
      Object.entries({ cx: 1, cy: 1, r: 1, fill: states[i] }).forEach(([key, value]) => circle.setAttribute(key, value));
      dot.append(circle);
      item.append(dot, text);
      return [item];
    }));
    frame();
  }

  function whole() {
    let [left, rightmost, top, bottom] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < number; i += 1) {
      left = Math.min(left, xs[i]); rightmost = Math.max(rightmost, xs[i]);
      top = Math.min(top, ys[i]); bottom = Math.max(bottom, ys[i]);
    }
    const scale = 0.95 * Math.min(canvas.width / (rightmost - left || 1), canvas.height / (bottom - top || 1));
    home = { x: (left + rightmost) / 2, y: (top + bottom) / 2, scale };
    view = { ...home };
  }

  function resize() {
    const ratio = Math.min(devicePixelRatio || 1, 2), isWhole = !view || Object.keys(home).every((key) => view[key] === home[key]);
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    image = context.createImageData(canvas.width, canvas.height);
    pixels = new Uint32Array(image.data.buffer);
    if (isWhole) whole();
    frame();
  }

  let waiting = 0;
  function frame() {
    if (!waiting) waiting = requestAnimationFrame(paint);
  }
  function paint() {
    waiting = 0;
    const start = performance.now(), { width, height } = canvas;
    const size = Math.max(1, Math.min(6, Math.round(1.5 * (devicePixelRatio || 1) * Math.sqrt(view.scale / home.scale))));
    pixels.fill(0);
    for (let k = 0; k < drawn.length; k += 1) {
      const i = drawn[k], side = k < plain ? size : size + 2;
      const x = Math.round((xs[i] - view.x) * view.scale + width / 2);
      const y = Math.round((view.y - ys[i]) * view.scale + height / 2);
      if (x < 0 || y < 0 || x >= width || y >= height) continue;
      for (let row = y; row < Math.min(y + side, height); row += 1) {
        for (let column = x; column < Math.min(x + side, width); column += 1) pixels[row * width + column] = colours[i];
      }
    }
    context.putImageData(image, 0, 0);
    if (outline.length) {
      context.strokeStyle = named("--accent");
      context.lineWidth = 2;
      context.beginPath();
      outline.forEach(([x, y]) => context.lineTo((x - view.x) * view.scale + width / 2, (view.y - y) * view.scale + height / 2));
      context.closePath();
      context.stroke();
    }
    canvas.dataset.drawn = Number(canvas.dataset.drawn || 0) + 1;
    canvas.dataset.ms = (performance.now() - start).toFixed(1);
  }

  const at = (event) => {
    const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
    return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
  };
  const place = ([x, y]) => [view.x + (x - canvas.width / 2) / view.scale, view.y - (y - canvas.height / 2) / view.scale];
  function zoom(factor, [x, y]) {
    const [px, py] = place([x, y]);
    view.scale = Math.min(Math.max(view.scale * factor, home.scale / 2), home.scale * 500);
    view.x = px - (x - canvas.width / 2) / view.scale;
    view.y = py + (y - canvas.height / 2) / view.scale;
    frame();
  }
  const lasso = document.getElementById("lasso"), gathered = document.getElementById("gathered");
  const drawing = () => lasso.getAttribute("aria-pressed") === "true";
  const fingers = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, at(event));
    moved = 0;
    if (drawing()) outline = [place(at(event))];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const before = fingers.get(event.pointerId), now = at(event);
    fingers.set(event.pointerId, now);
    moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (fingers.size === 2) {
      const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
      const distance = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]) || 1;
      zoom(distance(now) / distance(before), other);
    } else if (drawing()) {
      if (outline.length < 4000) outline.push(place(now));
    } else {
      view.x -= (now[0] - before[0]) / view.scale;
      view.y += (now[1] - before[1]) / view.scale;
    }
    frame();
  });
  let gathering = 0;
  async function gather() {
    if (outline.length < 3) return;
    const own = gathering += 1;
    const only = new URLSearchParams({ only: form.elements.only.value, label: form.elements.label.value });
    const response = await fetch(`/lasso?${only}`, { method: "POST", body: JSON.stringify(outline) });
    const text = await response.text();
    if (response.ok && own === gathering) gathered.innerHTML = text;
  }
  const lift = async (event) => {
    if (!fingers.delete(event.pointerId) || fingers.size) return;
    if (drawing()) {
      if (outline.length > 2) lasso.setAttribute("aria-pressed", "false");
      await gather();
    } else if (moved < 5) {
      open(at(event));
    }
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));
  function open(here) {
    const [x, y] = place(here);
    let nearest = -1, least = (12 / view.scale) ** 2;
    for (const i of drawn) {
      const away = (xs[i] - x) ** 2 + (ys[i] - y) ** 2;
      if (away < least) { least = away; nearest = i; }
    }
    if (nearest >= 0) location.href = nearest < train ? `/image/train/${nearest}` : `/image/test/${nearest - train}`;
  }
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), at(event));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const step = 40 / view.scale, middle = [canvas.width / 2, canvas.height / 2];
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) { view.x += moves[event.key][0]; view.y += moves[event.key][1]; frame(); }
    else if (event.key === "+" || event.key === "=") zoom(1.25, middle);
    else if (event.key === "-") zoom(0.8, middle);
    else return;
    event.preventDefault();
  });
  lasso.addEventListener("click", () => lasso.setAttribute("aria-pressed", String(!drawing())));
  document.getElementById("whole").addEventListener("click", () => {
    whole();
    outline = [];
    gathering += 1;
    gathered.replaceChildren();
    frame();
  });
  form.addEventListener("change", () => { choose(); gather(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", choose, { signal });
  resize();
  choose();
  const sized = new ResizeObserver(resize);
  sized.observe(canvas);
  signal.addEventListener("abort", () => sized.disconnect());
}
draw();
