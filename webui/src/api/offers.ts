// What this contract offers beyond its beginnings. A unit test holds each against openapi.yaml: a screen whose API is not there is left out.
export const offers = {
  events: true,
  archive: true,
} as const;

/** The path of openapi.yaml that each stands for. */
export const OFFERED_PATHS: Record<keyof typeof offers, string> = {
  events: "/events",
  archive: "/snapshots/{snapshot_id}/archive",
};
