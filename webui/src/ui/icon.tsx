// Icons: 16 by 16, drawn with the text's colour. They never stand alone where they mean something: text is beside them.
const PATHS = {
  overview: "M8 1.5 13.5 3.6v4c0 3.4-2.3 5.8-5.5 6.9-3.2-1.1-5.5-3.5-5.5-6.9v-4zM5.6 8l1.7 1.7 3.1-3.3",
  play: "M5 3.2v9.6L12.6 8z",
  jobs: "M2.5 4h1M6 4h7.5M2.5 8h1M6 8h7.5M2.5 12h1M6 12h7.5",
  sessions: "M8 2 14 5 8 8 2 5zM2.4 8 8 10.8 13.6 8M2.4 11 8 13.8 13.6 11",
  backups: "M2 3h12v3H2zM3 6v7h10V6M6.5 9h3",
  snapshots: "M2 5h2.6l1.2-1.8h4.4L11.4 5H14v8H2zM8 11.2a2.4 2.4 0 1 0 0-4.8 2.4 2.4 0 0 0 0 4.8z",
  writers: "M3 4c0-1.1 2.2-2 5-2s5 .9 5 2-2.2 2-5 2-5-.9-5-2zM3 4v8c0 1.1 2.2 2 5 2s5-.9 5-2V4M3 8c0 1.1 2.2 2 5 2s5-.9 5-2",
  providers: "M2 9.5 8 13l6-3.5M2 6.5 8 10l6-3.5L8 3z",
  repositories: "M2.5 5 8 2l5.5 3v6L8 14l-5.5-3zM2.5 5 8 8l5.5-3M8 8v6",
  access: "M10.5 9.5a4 4 0 1 0-4-4c0 .5.1 1 .3 1.4L2 11.7V14h2.3v-1.6H6v-1.7h1.7l.9-.9c.6.2 1.2.3 1.9-.3zM11.2 4.8h.1",
  about: "M8 14.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM8 7.2v4M8 4.8v.1",
  ok: "M8 14.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM5.2 8.2l1.9 1.9 3.7-4",
  failed: "M8 14.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4",
  cancelled: "M8 14.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM3.6 3.6l8.8 8.8",
  running: "M8 1.5a6.5 6.5 0 1 1-6.2 4.6",
  pending: "M8 14.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM8 4.5V8l2.4 1.6",
  warn: "M8 2 14.6 13.5H1.4zM8 6.4v3.4M8 11.6v.1",
  frozen: "M8 1.5v13M2.4 4.7l11.2 6.6M13.6 4.7 2.4 11.3M6.2 2.6 8 4.2l1.8-1.6M6.2 13.4 8 11.8l1.8 1.6M2.2 7.1l2.3-.7-.6-2.3M13.8 8.9l-2.3.7.6 2.3M13.8 7.1l-2.3-.7.6-2.3M2.2 8.9l2.3.7-.6 2.3",
  none: "M8 14.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM5.2 8h5.6",
  copy: "M5.5 5.5h8v8h-8zM3.5 10.5h-1v-8h8v1",
  download: "M8 2v8M4.8 7 8 10.2 11.2 7M2.5 13.5h11",
  folder: "M1.8 4h4.4l1.4 1.6h6.6v7.4H1.8z",
  file: "M4 1.8h5.2L12 4.6v9.6H4zM9 2v3h3",
  link: "M6.6 9.4 9.4 6.6M7 4.6l1.3-1.3a3 3 0 0 1 4.3 4.3L11.4 9M9 11.4l-1.3 1.3a3 3 0 0 1-4.3-4.3L4.6 7",
  sun: "M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15M3 3l1.2 1.2M11.8 11.8 13 13M13 3l-1.2 1.2M4.2 11.8 3 13",
  moon: "M13.5 9.6A6 6 0 0 1 6.4 2.5a6 6 0 1 0 7.1 7.1z",
  auto: "M2 3h12v8H2zM6 14h4M8 11v3",
  menu: "M2 4h12M2 8h12M2 12h12",
  right: "M6 3.5 10.5 8 6 12.5",
  left: "M10 3.5 5.5 8 10 12.5",
  close: "M3.5 3.5l9 9M12.5 3.5l-9 9",
  user: "M8 8a2.8 2.8 0 1 0 0-5.6A2.8 2.8 0 0 0 8 8zM2.6 14c.6-2.6 2.7-4 5.4-4s4.8 1.4 5.4 4",
  trash: "M2.5 4h11M6 4V2.5h4V4M4 4l.7 9.5h6.6L12 4M6.8 6.8v4M9.2 6.8v4",
  plus: "M8 2.5v11M2.5 8h11",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, class: extra = "" }: { name: IconName; class?: string }) {
  return (
    <svg class={`icon icon-${name} ${extra}`} viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
