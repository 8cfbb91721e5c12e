# install.mk - `make install` and `make uninstall`, below DESTDIR, and `make deb`.

#: make install     install under PREFIX (/usr/local) and SYSCONFDIR (/etc), below DESTDIR; make uninstall
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
LOCALSTATEDIR ?= /var
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/wspush
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d

# Without CLUSTER=1, install what was built last.
ifneq ($(filter install,$(MAKECMDGOALS)),)
CLUSTER ?= $(shell cmp -s wspush build/cluster/wspush && echo 1)
endif

# Below DOCDIR they have the folders that they have here, so that links between them hold.
DOCUMENTS = $(sort $(wildcard *.md docs/*.md docs/*.yaml docs/img/* examples/*.*)) LICENSE config.ini wspush.js \
            $(addprefix contrib/,nginx.conf Caddyfile haproxy.cfg compose.yaml kubernetes.yaml prometheus-rules.yml grafana-dashboard.json Dockerfile Dockerfile.dockerignore wspush.service wspush.logrotate)
SETTINGS = $(SYSCONFDIR)/wspush/wspush.ini $(SYSCONFDIR)/logrotate.d/wspush
INSTALLED = $(PREFIX)/bin/wspush $(MANDIR)/man1/wspush.1 $(MANDIR)/man5/wspush.ini.5 \
            $(UNITDIR)/wspush.service $(SYSUSERSDIR)/wspush.conf \
            $(addprefix $(DOCDIR)/,$(DOCUMENTS))

# $(call put,FILE,PLACE) installs a file of contrib/ with the chosen paths in it.
put = rm -f $(DESTDIR)$(2) && $(PLACES) contrib/$(1) >$(DESTDIR)$(2) && chmod 644 $(DESTDIR)$(2)
PLACES = sed -e 's|/usr/local|$(PREFIX)|g' -e 's|/etc/|$(SYSCONFDIR)/|g' -e 's|/var/|$(LOCALSTATEDIR)/|g'
# $(call keep,FILE) succeeds, and says so, if the file exists: settings are never overwritten.
keep = { [ -e $(DESTDIR)$(1) ] || [ -h $(DESTDIR)$(1) ]; } && echo 'kept as it is: $(DESTDIR)$(1)'

install: wspush
	umask 022 && mkdir -p $(addprefix $(DESTDIR),$(sort $(dir $(INSTALLED) $(SETTINGS))))
	install -m 755 wspush $(DESTDIR)$(PREFIX)/bin/wspush
	for file in $(DOCUMENTS); do install -m 644 $$file $(DESTDIR)$(DOCDIR)/$$file || exit 1; done
	$(call put,wspush.1,$(MANDIR)/man1/wspush.1)
	$(call put,wspush.ini.5,$(MANDIR)/man5/wspush.ini.5)
	$(call put,wspush.service,$(UNITDIR)/wspush.service)
	$(call put,wspush.sysusers,$(SYSUSERSDIR)/wspush.conf)
	@$(call keep,$(SYSCONFDIR)/logrotate.d/wspush) || { $(call put,wspush.logrotate,$(SYSCONFDIR)/logrotate.d/wspush); }
	@$(call keep,$(SYSCONFDIR)/wspush/wspush.ini) || { umask 027 && \
	    sed -e 's|^data_dir = .*|data_dir = $(LOCALSTATEDIR)/lib/wspush|' \
	        -e 's|^file =.*|file = $(LOCALSTATEDIR)/log/wspush/wspush.log|' config.ini \
	        >$(DESTDIR)$(SYSCONFDIR)/wspush/wspush.ini; }
	@[ -n '$(DESTDIR)' ] || { $(settle); }

# Without DESTDIR, what the service needs: its user, who may read the configuration, its folders, a systemd that
# knows the unit. Only root can do that.
settle = if [ "$$(id -u)" != 0 ]; then \
	    echo 'not root: the user wspush and its folders are not made; see contrib/wspush.service for what it needs'; \
	    exit 0; \
	fi; \
	getent passwd wspush >/dev/null || \
	    if command -v systemd-sysusers >/dev/null; then systemd-sysusers '$(SYSUSERSDIR)/wspush.conf'; \
	    else useradd --system --user-group --home-dir '$(LOCALSTATEDIR)/lib/wspush' --shell /usr/sbin/nologin wspush; fi && \
	chgrp wspush '$(SYSCONFDIR)/wspush/wspush.ini' && \
	install -d -o wspush -g wspush -m 700 '$(LOCALSTATEDIR)/lib/wspush' && \
	install -d -o wspush -g wspush -m 750 '$(LOCALSTATEDIR)/log/wspush' && \
	if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi && \
	echo 'start it, now and at each boot: systemctl enable --now wspush'

uninstall:
	rm -f $(addprefix $(DESTDIR),$(INSTALLED))
	-@rmdir $(addprefix $(DESTDIR)$(DOCDIR),/docs/img /docs /examples /contrib) $(DESTDIR)$(DOCDIR) 2>/dev/null || :
	@echo 'left where they are: $(SETTINGS), and the data and logs in $(LOCALSTATEDIR)'

#: make deb         build a Debian package in build/deb; with CLUSTER=1 one that can join a cluster
DEB_TREE = build/deb/wspush
DEB_VERSION = $(shell sed -n 's/^.define VERSION "\(.*\)"$$/\1/p' wspush.c)
deb:
	@command -v dh >/dev/null && command -v dpkg-buildpackage >/dev/null || \
	    { echo 'make deb needs debhelper: apt-get install build-essential debhelper'; exit 1; }
	@rm -rf build/deb && mkdir -p $(DEB_TREE)
	@tar -c --exclude=./build --exclude=./.git --exclude=./.tools --exclude=./data --exclude=./wspush . | tar -x -C $(DEB_TREE)
	@cp -R contrib/debian $(DEB_TREE)/debian
	@printf 'wspush (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- %s <%s>  %s\n' \
	    '$(DEB_VERSION)$(if $(CLUSTER),+cluster)' \
	    "$${DEBFULLNAME:-wspush authors}" "$${DEBEMAIL:-wspush@wspush.invalid}" \
	    "$$(LC_ALL=C date -u -R -d "@$${SOURCE_DATE_EPOCH:-$$(stat -c %Y wspush.c)}")" >$(DEB_TREE)/debian/changelog
	cd $(DEB_TREE) && env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS \
	    dpkg-buildpackage --build=binary --no-sign $(if $(CLUSTER),-Ppkg.wspush.cluster)
	@ls build/deb/*.deb
