// Map of the review page: tiles in the pixel grid, outlines on one canvas, drawing, keys. Loaded before the map is made.
"use strict";

L.Map.mergeOptions({
  crs: L.CRS.Simple,
  zoomAnimation: false,
  fadeAnimation: false,
  markerZoomAnimation: false,
  inertia: false,
  doubleClickZoom: false,
  keyboard: false,
  zoomControl: false,
  attributionControl: false,
});

window.review = (() => {
  const layers = {}, hidden = new Set(), statuses = new Map();
  let map, config, canvas, frame = null, waiting = null, shapes = null, request = 0, updates = 0;
  let state = { current: null, chosen: [], cell: null, searched: [], mode: "" };
  let tool = null, edited = null, share = 0.5;

  const toLatLng = ([x, y]) => L.latLng(-y, x);
  const toPixel = (latlng) => [latlng.lng, -latlng.lat];
  const toBounds = ([left, top, right, bottom]) => L.latLngBounds(toLatLng([left, bottom]), toLatLng([right, top]));

  function start(leaflet, settings) {
    [map, config] = [leaflet, settings];
    const whole = toBounds([0, 0, config.width, config.height]);
    map.setMaxBounds(whole.pad(0.5));
    if (config.gsd) {
      const metres = (one, other) => config.gsd * Math.hypot(one.lat - other.lat, one.lng - other.lng);
      map.options.crs = L.extend({}, L.CRS.Simple, { distance: metres });
      L.control.scale({ imperial: false }).addTo(map);
    }
    for (const [name, order] of Object.entries(config.layers)) {
      map.createPane(name).style.zIndex = order;
      layers[name] = L.tileLayer(`${config.url}/tiles/${name}/{z}/{x}/{y}`, {
        pane: name, bounds: whole, minZoom: config.minZoom, maxZoom: config.maxZoom, maxNativeZoom: 0,
        noWrap: true, keepBuffer: 1, updateWhenIdle: false,
      });
      hidden.add(name);
    }
    const corner = L.divIcon({ iconSize: [12, 12], className: "leaflet-div-icon leaflet-editing-icon" });
    for (const tool of [L.Edit.PolyVerticesEdit, L.Draw.Polyline]) tool.mergeOptions({ touchIcon: corner });
    canvas = L.DomUtil.create("canvas", "outlines", map.getPane("overlayPane"));
    config.statuses.forEach(([key, status]) => statuses.set(key, status));
    map.on("moveend", moved).on("move", swipe).on("resize", moved);
    map.on("click", (event) => {
      if (!tool && !edited) emitEvent("review_click", [...toPixel(event.latlng), map.getZoom()]);
    });
    map.on("draw:created", (event) => finish([event.layer.getLatLngs()].flat(event.layerType === "polygon" ? 1 : 0)));
    document.addEventListener("keydown", pressed, true);
    addDivider();
    show(config.bounds);
    new ResizeObserver(() => map.invalidateSize()).observe(map.getContainer());
  }

  // Layers

  function layer(name, shown, opacity) {
    if (name === "outlines" || name === "cells") {
      hidden[shown ? "delete" : "add"](name);
      draw();
      return;
    }
    if (!layers[name]) return;
    if (shown) layers[name].addTo(map).setOpacity(opacity);
    else layers[name].remove();
    hidden[shown ? "delete" : "add"](name);
    swipe();
  }

  function addDivider() {
    const bar = L.DomUtil.create("div", "divider", map.getContainer());
    L.DomEvent.disableClickPropagation(bar);
    bar.addEventListener("pointerdown", (event) => bar.setPointerCapture(event.pointerId));
    bar.addEventListener("pointermove", (event) => {
      if (!bar.hasPointerCapture(event.pointerId)) return;
      const box = map.getContainer().getBoundingClientRect();
      share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
      swipe();
    });
  }

  function swipe() {
    const shown = layers.before && !hidden.has("before");
    const bar = map.getContainer().querySelector(".divider");
    bar.style.display = shown ? "block" : "none";
    if (!shown) return;
    const size = map.getSize(), corner = map.containerPointToLayerPoint([0, 0]);
    bar.style.left = `${size.x * share}px`;
    map.getPane("before").style.clip =
      `rect(${corner.y}px, ${corner.x + size.x}px, ${corner.y + size.y}px, ${corner.x + size.x * share}px)`;
  }

  // Outlines

  function moved() {
    draw();
    const bounds = map.getBounds(), [left, top] = toPixel(bounds.getNorthWest()), [right, bottom] = toPixel(bounds.getSouthEast());
    const known = shapes && shapes.zoom === map.getZoom() && shapes.version === request;
    if (known && shapes.box[0] <= left && shapes.box[1] <= top && shapes.box[2] >= right && shapes.box[3] >= bottom) return;
    load([left, top, right, bottom]);
  }

  async function load([left, top, right, bottom]) {
    const [wide, high, zoom, number] = [(right - left) / 2, (bottom - top) / 2, map.getZoom(), ++request];
    const box = [left - wide, top - high, right + wide, bottom + high];
    const answer = await fetch(`${config.url}/outlines/${zoom}/${box.map((edge) => edge.toFixed(1)).join("/")}`);
    if (!answer.ok || number !== request) return;
    shapes = { ...(await answer.json()), zoom, box, version: number };
    draw();
  }

  function paths(wanted) {
    const found = new Map(), { keys, parts, rings, points } = shapes;
    const dot = (shapes.scale / 2 ** map.getZoom()) * 1.5;
    for (let polygon = 0, ring = 0, at = 0; polygon < keys.length; polygon++) {
      const name = wanted(keys[polygon]);
      if (name !== null && !found.has(name)) found.set(name, new Path2D());
      const path = found.get(name);
      for (const last = ring + parts[polygon]; ring < last; ring++) {
        const end = at + 2 * rings[ring];
        if (name !== null && rings[ring] === 1) path.rect(points[at] - dot, points[at + 1] - dot, 2 * dot, 2 * dot);
        else if (name !== null) {
          path.moveTo(points[at], points[at + 1]);
          for (let next = at + 2; next < end; next += 2) path.lineTo(points[next], points[next + 1]);
          path.closePath();
        }
        at = end;
      }
    }
    return found;
  }

  // Several changes of one message are drawn once, before the next frame.
  function draw() {
    frame ??= requestAnimationFrame(() => {
      frame = null;
      drawNow();
    });
  }

  function drawNow() {
    Object.assign(document.body.dataset, { drawn: `${state.current}`, updates: `${updates}` });
    const size = map.getSize(), ratio = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
    const pad = [Math.round(size.x / 10), Math.round(size.y / 10)];
    const corner = map.containerPointToLayerPoint([-pad[0], -pad[1]]), origin = map.getPixelOrigin();
    L.DomUtil.setPosition(canvas, corner);
    const [wide, high] = [(size.x + 2 * pad[0]) * ratio, (size.y + 2 * pad[1]) * ratio];
    if (canvas.width !== wide || canvas.height !== high) {
      [canvas.width, canvas.height] = [wide, high];
      [canvas.style.width, canvas.style.height] = [`${wide / ratio}px`, `${high / ratio}px`];
    }
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, wide, high);
    const zoom = 2 ** map.getZoom(), shift = [-(origin.x + corner.x) * ratio, -(origin.y + corner.y) * ratio];
    drawCells(pen, zoom * ratio, shift, ratio);
    if (!shapes) return;
    const factor = (zoom / shapes.scale) * ratio, line = ratio / factor;
    pen.setTransform(factor, 0, 0, factor, ...shift);
    pen.lineJoin = "round";
    const chosen = new Set([state.current, ...state.chosen]);
    if (!hidden.has("outlines")) {
      for (const [status, path] of paths((key) => (chosen.has(key) ? null : statuses.get(key) ?? ""))) {
        pen.setLineDash(status === "rejected" ? [6 * line, 4 * line] : []);
        stroke(pen, path, [["rgba(0,0,0,0.55)", 3.2 * line], [config.colours[status], 1.8 * line]]);
      }
    }
    pen.setLineDash([]);
    if (edited) return;
    for (const [status, path] of paths((key) => (chosen.has(key) ? statuses.get(key) ?? "" : null)))
      stroke(pen, path, [["#000", 6.5 * line], ["#fff", 5 * line], [config.colours[status], 2.5 * line]]);
  }

  function stroke(pen, path, lines) {
    for (const [colour, width] of lines) {
      [pen.strokeStyle, pen.lineWidth] = [colour, width];
      pen.stroke(path);
    }
  }

  function drawCells(pen, factor, shift, ratio) {
    if (hidden.has("cells") && !state.cell) return;
    pen.setTransform(factor, 0, 0, factor, ...shift);
    pen.fillStyle = "rgba(86,180,233,0.22)";
    for (const [left, top, right, bottom] of state.searched) pen.fillRect(left, top, right - left, bottom - top);
    const grid = new Path2D();
    for (let x = 0; x < config.width + config.cell; x += config.cell) {
      grid.moveTo(Math.min(x, config.width), 0);
      grid.lineTo(Math.min(x, config.width), config.height);
    }
    for (let y = 0; y < config.height + config.cell; y += config.cell) {
      grid.moveTo(0, Math.min(y, config.height));
      grid.lineTo(config.width, Math.min(y, config.height));
    }
    stroke(pen, grid, [["rgba(0,0,0,0.5)", (2.5 * ratio) / factor], ["rgba(255,255,255,0.6)", ratio / factor]]);
    if (!state.cell) return;
    const [left, top, right, bottom] = state.cell, box = new Path2D();
    box.rect(left, top, right - left, bottom - top);
    stroke(pen, box, [["#000", (6 * ratio) / factor], ["#fff", (4 * ratio) / factor]]);
  }

  // Messages of the server

  function update(message) {
    updates++;
    for (const [key, status] of message.statuses ?? []) statuses.set(key, status);
    for (const name of ["current", "chosen", "cell", "searched"]) if (name in message) state[name] = message[name];
    if ("mode" in message) begin(message.mode, message.rings);
    const before = request;
    if (message.bounds) show(message.bounds, message.fit);
    clearTimeout(waiting);
    if (message.ahead) waiting = setTimeout(fetchAhead, 250, message.ahead);
    if (message.reload && request === before) {
      shapes && (shapes.version = -1);
      moved();
    } else draw();
  }

  // The zoom stays while a landslide is neither tiny nor larger than the view, because each change costs the eye time.
  function zoomFor(box, fit) {
    const size = map.getSize(), share = Math.max((box[2] - box[0]) / size.x, (box[3] - box[1]) / size.y);
    const limited = (zoom) => Math.max(Math.min(Math.floor(zoom), config.closeZoom), config.minZoom);
    const zoom = map.getZoom(), shown = share * 2 ** zoom;
    if (fit) return limited(Math.log2(1 / share));
    return !state.seen || shown > 0.8 || shown < 0.06 ? limited(Math.log2(0.6 / share)) : zoom;
  }

  // Ask for the tiles around the next landslide, so that its picture is there with its outline.
  function fetchAhead(box) {
    if (!layers.scene || hidden.has("scene")) return;
    const zoom = zoomFor(box), level = Math.min(zoom, 0), scale = 2 ** level, size = map.getSize();
    const reach = [size.x / 2 ** (zoom + 1), size.y / 2 ** (zoom + 1)];
    const [x, y] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
    const tile = (at, end) => Math.floor((Math.min(Math.max(at, 0), end - 1) * scale) / 256);
    for (let column = tile(x - reach[0], config.width); column <= tile(x + reach[0], config.width); column++)
      for (let row = tile(y - reach[1], config.height); row <= tile(y + reach[1], config.height); row++)
        new Image().src = `${config.url}/tiles/scene/${level}/${column}/${row}`;
  }

  function show(box, fit) {
    const zoom = zoomFor(box, fit), centre = toBounds(box).getCenter();
    state.seen = true;
    if (zoom !== map.getZoom() || map.project(centre).distanceTo(map.project(map.getCenter())) >= 1)
      map.setView(centre, zoom, { animate: false });
  }

  // Drawing

  function begin(mode, rings) {
    stop();
    state.mode = mode;
    map.getContainer().dataset.mode = mode;
    const look = { shapeOptions: { color: "#ffffff", weight: 3, fillOpacity: 0.1 }, showArea: false, showLength: false };
    if (mode === "edit") {
      const place = rings.map((ring) => ring.map(toLatLng));
      enlarge(L.latLngBounds(place.flat()));
      edited = L.polygon(place, { color: "#ffffff", weight: 3, fill: false }).addTo(map);
      edited.editing.enable();
    } else if (mode === "split") tool = new L.Draw.Polyline(map, look);
    else if (["draw", "add", "cut"].includes(mode)) tool = new L.Draw.Polygon(map, look);
    tool?.enable();
    draw();
  }

  // Corners of a tiny outline lie too close to be dragged.
  function enlarge(bounds) {
    const size = map.project(bounds.getSouthEast()).subtract(map.project(bounds.getNorthWest()));
    const steps = Math.ceil(Math.log2(160 / Math.max(size.x, size.y, 1)));
    if (steps > 1) map.setView(bounds.getCenter(), Math.min(map.getZoom() + steps, config.maxZoom), { animate: false });
  }

  function stop() {
    tool?.disable();
    edited?.remove();
    [tool, edited] = [null, null];
  }

  function finish(rings) {
    emitEvent("review_shape", rings.map((ring) => ring.map(toPixel)));
    stop();
  }

  function complete() {
    if (edited) finish(edited.getLatLngs());
    else if (tool && tool._markers.length >= (state.mode === "split" ? 2 : 3)) tool._finishShape();
  }

  // Keys

  function pressed(event) {
    const target = event.target;
    if (target.closest?.("input, textarea, select, .q-dialog, .q-menu")) {
      if (event.key === "Escape" || (event.key === "Enter" && target.tagName === "INPUT")) target.blur();
      return;
    }
    const key = event.key.toLowerCase();
    if (event.altKey || event.metaKey || (event.ctrlKey && key !== "z") || event.isComposing) return;
    if (drawn(key) || pan(key, event)) event.preventDefault();
    else if (key.length === 1 || ["escape", "enter", "delete"].includes(key)) {
      if (event.key === "Enter" && target.closest?.("button")) return;
      if (key === "c") event.preventDefault(); // the letter would land in the note
      if (!event.repeat) emitEvent("review_key", key, state.current);
    }
  }

  function drawn(key) {
    if (!tool && !edited) return false;
    if (key === "enter") complete();
    else if (key === "backspace" && tool) tool.deleteLastVertex();
    else if (key === "escape") {
      stop();
      emitEvent("review_key", key, state.current);
    } else return key.length === 1; // other keys do nothing while one draws
    return true;
  }

  function pan(key, event) {
    const step = event.shiftKey ? 400 : 120;
    const ways = { arrowleft: [-step, 0], arrowright: [step, 0], arrowup: [0, -step], arrowdown: [0, step] };
    if (ways[key] && !event.target.closest?.("[role=slider]")) map.panBy(ways[key], { animate: false });
    else if (key === "+" || key === "=") map.zoomIn();
    else if (key === "-") map.zoomOut();
    else if (key === "f") map.fitBounds(toBounds([0, 0, config.width, config.height]));
    else return false;
    return true;
  }

  return { start, layer, update };
})();
