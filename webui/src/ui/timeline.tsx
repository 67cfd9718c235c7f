// The quiesce timeline: who held still from when to when, in milliseconds from the first Freeze, inside the window of the whole set.
import type { Component, FreezeWindow } from "../api/types";
import { t } from "../i18n";
import { span } from "./format";

export interface Lane {
  name: string;
  title: string;
  kind: "component" | "file system";
  freeze: FreezeWindow;
}

/** Who held still: components by their writers, and the file systems that were frozen themselves. */
export function lanesOf(window: FreezeWindow, components: Pick<Component, "writer" | "name" | "freeze">[]): Lane[] {
  const own = components.flatMap((one): Lane[] =>
    one.freeze ? [{ name: one.writer === one.name ? one.writer : `${one.writer} / ${one.name}`, title: `${one.writer} / ${one.name}`, kind: "component", freeze: one.freeze }] : [],
  );
  const systems = (window.file_systems ?? []).map((one): Lane => ({ name: one.mount_point, title: `${one.mount_point} (${one.fs_type})`, kind: "file system", freeze: one }));
  return [...own, ...systems];
}

export interface Placed {
  from: number;
  to: number;
}

/** Parts of the window, 0 to 1. Clocks of the start are wall clocks of one host; the lengths are monotonic. */
export function place(lane: FreezeWindow, window: FreezeWindow): Placed {
  const whole = Math.max(window.window_ms, 0.001);
  const from = Math.min(1, Math.max(0, (Date.parse(lane.started_at) - Date.parse(window.started_at)) / whole));
  return { from, to: Math.min(1, Math.max(from, from + lane.window_ms / whole)) };
}

const percent = (part: number): string => `${(part * 100).toFixed(3)}%`;

function Bar({ lane, placed, kind }: { lane: { name: string; title: string; took: number }; placed: Placed; kind: "window" | Lane["kind"] }) {
  return (
    <div class={`lane ${kind.replace(" ", "-")}`}>
      <span class="name" title={lane.title}>{kind === "file system" ? <code>{lane.name}</code> : lane.name}</span>
      <svg role="img" aria-label={lane.title}>
        <rect class="track" x="0" y="3" width="100%" height="14" rx="3" />
        <rect class="held" x={percent(placed.from)} y="3" width={percent(Math.max(placed.to - placed.from, 0.004))} height="14" rx="3">
          <title>{lane.title}</title>
        </rect>
        <line class="edge" x1="0" x2="0" y1="-3" y2="23" />
        <line class="edge" x1="100%" x2="100%" y1="-3" y2="23" />
      </svg>
      <span class="took">{span(lane.took)}</span>
    </div>
  );
}

export function Timeline({ window, components }: { window: FreezeWindow; components: Pick<Component, "writer" | "name" | "freeze">[] }) {
  const lanes = lanesOf(window, components);
  const ordered = [...lanes].sort((a, b) => Date.parse(a.freeze.started_at) - Date.parse(b.freeze.started_at) || b.freeze.window_ms - a.freeze.window_ms);
  const whole = window.window_ms;
  return (
    <div class="timeline">
      <Bar kind="window" placed={{ from: 0, to: 1 }} lane={{ name: t("Freeze window"), title: t("From the first Freeze to the last Thaw: {span}", { span: span(whole) }), took: whole }} />
      {ordered.map((lane) => {
        const placed = place(lane.freeze, window);
        const title = t("{name}: frozen {from} after the first, for {span}", { name: lane.title, from: span(placed.from * whole), span: span(lane.freeze.window_ms) });
        return <Bar key={lane.kind + lane.title} kind={lane.kind} placed={placed} lane={{ name: lane.name, title, took: lane.freeze.window_ms }} />;
      })}
      <div class="lane" aria-hidden="true">
        <span />
        <div class="axis"><span>0</span><span>{span(whole / 2)}</span><span>{span(whole)}</span></div>
        <span />
      </div>
      {lanes.some((lane) => lane.kind === "file system") && (
        <p class="small quiet lane-key"><span class="swatch" /> {t("writers")} <span class="swatch file-system" /> {t("file systems")}</p>
      )}
      {window.limit_ms ? <Budget used={whole} limit={window.limit_ms} /> : null}
    </div>
  );
}

/** How much of what is allowed. */
export function Budget({ used, limit }: { used: number; limit: number }) {
  const part = Math.min(1, used / limit);
  return (
    <div class="budget">
      <div class="budget-bar">
        <svg role="img" aria-label={t("{used} of {limit} allowed", { used: span(used), limit: span(limit) })}>
          <rect x="0" y="0" height="8" width={percent(Math.max(part, 0.003))} rx="4" />
        </svg>
      </div>
      <p class="small quiet">{t("{used} of the {limit} after which everything is thawed whatever happens ({part} %)", { used: span(used), limit: span(limit), part: part < 0.001 ? "< 0.1" : (part * 100).toFixed(part < 0.1 ? 1 : 0) })}</p>
    </div>
  );
}
