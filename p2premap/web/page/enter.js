// Where a login ends: the page, at the place that the link named.
location.replace(`/${location.hash}`);
